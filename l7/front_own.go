// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// An ownFront makes (w, r) for foreign handlers itself, without an http.Server.
type ownFront interface {
	downstream

	server() *Server
	// origin returns that of the connection. Nothing changes it.
	origin() *origin
	// ownRequest makes r the request that net/http would make: as the client sent
	// it, without the exchange's edits. The caller sets its Body. Over HTTP/1 its context
	// is ctx.
	ownRequest(r *http.Request, ctx *requestContext)
	// wrote is called when a handler has written more than is buffered.
	wrote()
	// heldBack is how many bytes of a reply are buffered, so that a short one is
	// sent with its length.
	heldBack() int
	// lastReply says that the handler has asked for the end of the connection: with
	// HTTP/2 once the streams under way have ended.
	lastReply()
	setReadDeadline(t time.Time) error
	setWriteDeadline(t time.Time) error
	// takeConn gives the connection to a handler that hijacks it by w. awaitTaken
	// waits until the exchange is not needed for it any more; broken says that the
	// handler has panicked.
	takeConn(w *ownWriter) (net.Conn, *bufio.ReadWriter, error)
	awaitTaken(broken bool)
	mayHijack() bool
}

// An ownExchange is what a foreign handler gets and may keep, so it can serve no other
// request. What it costs is the collection of its memory, hence one allocation, and small.
type ownExchange struct {
	std standard
	w   ownWriter
	r   http.Request
	ctx requestContext
	l   carried
}

// serveOwn calls a foreign handler with a (w, r) that the front makes.
func serveOwn(x *Exchange, under ownFront, h http.Handler) {
	own := new(ownExchange)
	std, w, r := &own.std, &own.w, &own.r
	under.ownRequest(r, &own.ctx)
	w.x, w.under, w.header = x, under, make(http.Header) // in place: literals would be made elsewhere and copied
	r.Body = http.NoBody
	if r.ContentLength != 0 {
		b := &ownBody{x: x, under: under, r: r, turn: make(chan struct{}, 1)}
		if r.Body = b; x.proto < 2 {
			w.body = b
		}
	}
	std.x, std.w, std.r, std.srv, std.under, std.front, std.room = x, w, r, under.server(), under, x.Record.Front, &own.l
	if t, ok := under.(*through); ok {
		std.around = t.lent
	}
	x.Record.Front = FrontStandard
	x.down, x.replied = std, false
	returned := false
	defer func() {
		if p := recover(); p != nil {
			std.panicked(p)
		} else if !returned {
			std.neverReturned()
		}
		own.ctx.end()
		w.loan.takeBack(func() {}) // a write in progress is bounded, so this waits for it
		x.down = under
		switch {
		case std.aborted:
			if w.hijacked {
				under.awaitTaken(true)
			} else {
				under.abort()
			}
			if completed(x.Record.Termination) && !std.cutInside {
				x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
			}
		case std.through != nil:
			std.through.end()
		case w.hijacked:
			under.awaitTaken(false)
		default:
			w.end()
		}
		if std.body.stopped.Load() {
			under.resumeBody()
		}
		x.replied = true
	}()
	std.serveForeign(h, wrapsNothing)
	returned = true
}

// requestContext is the context of a request of HTTP/1 for a foreign handler. Like that of
// net/http it ends when the handler has returned, and the connection's does not. Most
// requests never ask for its end.
type requestContext struct {
	context.Context // of the connection

	mu   sync.Mutex
	made *madeContext // below that; nil until it is needed
	over bool
}

type madeContext struct {
	context.Context
	cancel func()
}

// Done implements [context.Context].
func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		ctx, cancel := context.WithCancel(c.Context)
		if c.made = (&madeContext{ctx, cancel}); c.over {
			cancel()
		}
	}
	return c.made.Done()
}

// Err implements [context.Context].
func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made != nil:
		return c.made.Err()
	case c.over:
		return context.Canceled
	}
	return c.Context.Err()
}

// Value implements [context.Context]. Package context finds by it that it made c.made,
// and then needs no goroutine for a context below.
func (c *requestContext) Value(key any) any {
	c.mu.Lock()
	made := c.made
	c.mu.Unlock()
	if made != nil {
		return made.Context.Value(key)
	}
	return c.Context.Value(key)
}

func (c *requestContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over = true; c.made != nil {
		c.made.cancel()
	}
}

// ownContext is the context that a connection is served with, with the values that net/http
// puts into that of a request, for foreign handlers. It is the connection itself, so that it
// takes no memory.
type ownContext byteConn

// Deadline implements [context.Context].
func (x *ownContext) Deadline() (time.Time, bool) { return x.base.Deadline() }

// Done implements [context.Context].
func (x *ownContext) Done() <-chan struct{} { return x.base.Done() }

// Err implements [context.Context].
func (x *ownContext) Err() error { return x.base.Err() }

// Value implements [context.Context].
func (x *ownContext) Value(key any) any {
	switch key {
	case http.ServerContextKey:
		return x.srv.std
	case http.LocalAddrContextKey:
		return x.nc.LocalAddr()
	}
	return x.base.Value(key)
}
