// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// upConn is an HTTP/1 connection to a server. One request at a time uses it.
type upConn struct {
	host     *upHost
	c        *l4.Conn
	expires  time.Time // zero means never
	idleAt   time.Time // time of the last use
	requests int
	cuts     int // host.cuts when it was opened
	id       identity
	session  *session // of the request that uses it, if known
	quiet    *quiet
	readAt   deadline
	sendAt   deadline

	enough  atomic.Bool                         // the rest of the request body must not be sent
	whenCut atomic.Pointer[func(reason string)] // nil until the connection is a tunnel
	in      input                               // holds no buffer while it is empty
	head    string                              // of the last reply
	trace   *tracer                             // of the request that has it; nil if no program looks
	pump    *pump                               // sends the request body; nil if the body was in memory
	rep     Reply
	sourceEnd
	upReply
}

// interrupt makes current and future reads and writes fail.
func (c *upConn) interrupt() {
	c.interrupted.Store(true)
	c.expire(func() { _ = c.c.SetDeadline(past) })
}

// interruptBody is interrupt for a request body that stops early: the server
// must not take the part that it has for the whole.
func (c *upConn) interruptBody() { c.expire(func() { _ = c.c.SetReadDeadline(past) }) }

func (c *upConn) cut(reason string) {
	c.cutReason.Store(&reason)
	c.expire(func() { _ = c.c.SetDeadline(past) })
	if f := c.whenCut.Load(); f != nil { // seen here, or onCut sees cutReason
		(*f)(reason)
	}
}

// expire ends the current operations of c by a deadline or, if setting it panics,
// by closing c.
func (c *upConn) expire(set func()) {
	if quietly(slog.Default(), set) != nil {
		c.shut()
	}
}

func (c *upConn) shut() { _ = quietly(slog.Default(), func() { _ = c.c.Close() }) }

// close closes the connection for good.
func (c *upConn) close() {
	c.x = nil
	c.releaseInput()
	c.forget()
	c.shut()
}

// forget removes the connection from the list.
func (c *upConn) forget() {
	c.host.mu.Lock()
	delete(c.host.conns, c)
	gone := c.host.gone
	c.host.mu.Unlock()
	if gone {
		c.host.leave()
	}
}

// isQuiet reports whether the server has sent nothing since its last reply, as far as
// can be found out. A *tls.Conn may hold a whole record that came in the segment of the
// record before it: its socket is empty then.
func (c *upConn) isQuiet() (is bool) {
	err := quietly(slog.Default(), func() {
		if is = c.quiet.is(); is && !c.quiet.plain {
			b, err := c.c.TryReadBuffer(&c.host.up.pool)
			is = b == nil && err == nil
			c.host.up.pool.Put(b)
		}
	})
	return is && err == nil
}

// release ends the use of a connection. Clean means that request and reply are
// complete, and that only the next reply can follow.
func (c *upConn) release(clean bool) {
	x, trace := c.x, c.trace
	c.x, c.pump, c.trace = nil, nil, nil
	if x == nil || c.waited {
		c.idleAt = time.Now()
	}
	c.consumed()
	kept := clean && c.keep && c.in.empty() && !c.lost()
	if kept {
		if c.private {
			c.logIn(x)
		}
		kept = c.host.put(c)
	} else {
		c.close()
	}
	if trace != nil {
		_ = quietly(slog.Default(), func() { trace.kept(kept) })
	}
}

// logIn sets the session to which an authenticated connection belongs.
func (c *upConn) logIn(x *Exchange) {
	if c.session == nil && x != nil {
		c.session = x.down.session(true).session
	}
	if c.session != nil && c.session.program {
		c.session = nil
	}
}

func (c *upConn) releaseInput() { c.in.release(&c.host.up.buffers) }
