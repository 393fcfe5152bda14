// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// byteConn is a connection of the byte front. One goroutine reads a head, runs
// the handler tree, which relays or answers, and waits for the next request.
type byteConn struct {
	unbounded
	listed // guarded by mu of srv

	// Set before other goroutines see the connection.
	srv    *Server
	base   context.Context
	raw    net.Conn // as accepted
	nc     net.Conn // raw, or TLS over it
	c      *l4.Conn
	ctx    context.Context // of all its exchanges: ends when the client disconnects
	cancel context.CancelFunc

	// Owned by its goroutine. While the connection is parked or has no goroutine, they
	// have no owner.
	*work              // nil while the connection is settled
	in      input      // holds no buffer while it is empty
	out     *l4.Buffer // bytes of the reply not yet written; nil if there are none
	readAt  deadline   // also used by the reader of the body
	owns    *session   // server connections kept for the client; nil until needed; with HTTP/2, guarded by h2.mu
	watched *l4.Conn   // the connection that the Parker watches, or will soon; nil if none
	peek    *peek      // nil if there is none
	served  int32
	ends    ending
	moved   bool // to the standard front
	settled bool // no longer on the stack that served the last exchange
	opaque  bool // the listener has made it a TLS connection; set before others see it

	// Used by all goroutines.
	state   activity
	leaving leaving
	stopped atomic.Bool // the body is not wanted any more
	gone    atomic.Bool // the client has closed its side; set under mu

	unpeeked  bool // no peek may begin until the next exchange; its goroutine's
	unwatched bool // must not be watched any more; guarded by mu

	mu       sync.Mutex  // guards the fields below, and is held while other goroutines set a deadline
	upstream interrupter // to be interrupted when the client disconnects
	h2       *h2Front    // nil if the connection is one of HTTP/1
}

// work is what a connection needs while it serves requests. A settled
// connection has none.
type work struct {
	x      Exchange
	from   origin
	kept   *origin  // a copy that outlives the connection; nil until it is needed
	remote net.Addr // of the client; asked for once, as a listener's connection may have to find out
	name   string   // of the client, as net/http writes it; "" until it is needed
	hosts  misdirected
	frame  framing
	req    reqBody
	rep    repBody
	own    ownDeadlines
	sendAt deadline
}

// takeWork gives the connection its work.
func (c *byteConn) takeWork() {
	w, ok := c.srv.works.Get().(*work)
	if !ok {
		w = new(work)
	}
	c.work = w
	w.x.down, w.name, w.kept = c, "", nil
	w.sendAt.forget() // it was another connection's
	w.from = c.comesFrom()
}

// comesFrom returns the origin of the connection.
func (c *byteConn) comesFrom() origin {
	o := origin{"http", c.remoteAddrPort(), addrPort(c.nc.LocalAddr()), tlsState(c.nc), keptWith(c.nc, l4.ProxyHeaderOf), keptWith(c.nc, l4.JA4Of)}
	if o.tls != nil {
		o.scheme = "https"
	}
	return o
}

// remoteName returns the client's address as net/http writes it.
func (c *byteConn) remoteName() string {
	if c.name == "" {
		if c.from.remote.IsValid() {
			c.name = c.from.remote.String() // of fewer allocations
		} else {
			c.name = c.remoteAddr().String()
		}
	}
	return c.name
}

// remoteAddr returns the client's address. It belongs to the goroutine of c.
func (c *byteConn) remoteAddr() net.Addr {
	if c.work == nil {
		return c.nc.RemoteAddr()
	}
	if c.remote == nil {
		c.remote = c.nc.RemoteAddr()
	}
	return c.remote
}

// remoteAddrPort is remoteAddr, and allocates nothing for a connection of l4.
func (c *byteConn) remoteAddrPort() netip.AddrPort {
	if s, ok := c.nc.(interface{ RemoteAddrPort() netip.AddrPort }); ok {
		a := s.RemoteAddrPort()
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return addrPort(c.remoteAddr())
}

// giveWork returns the work to its pool.
func (c *byteConn) giveWork() {
	w := c.work
	if w == nil {
		return
	}
	c.work = nil
	w.from, w.kept, w.remote, w.hosts = origin{}, nil, nil, misdirected{}
	w.x.reset(&w.from)
	w.x.down = nil
	w.frame, w.req, w.rep = framing{}, reqBody{}, repBody{}
	c.srv.works.Put(w)
}

// start runs in the connection's goroutine.
func (c *byteConn) start(cfg *tls.Config) {
	growStackHTTP1(0)
	if c.open(cfg) {
		c.loop()
	}
}

// open makes a new connection ready. It returns false if that has ended, or waits
// without a goroutine.
func (c *byteConn) open(cfg *tls.Config) (ready bool) {
	defer func() {
		if p := recover(); p != nil { // of the connection itself, which may be the host's
			_ = recovered(c.srv.logger(), p, "connection")
			c.ends.atLeast(endsBroken)
			c.end()
		}
	}()
	c.leaveWith()
	if !c.handshake(cfg) {
		c.end()
		return false
	}
	c.c = l4.NewConn(c.nc)
	if t, ok := c.nc.(*tls.Conn); ok && negotiated(t) == "h2" {
		if _, http2, _ := c.srv.speaks(); !http2 { // the listener has offered HTTP/2
			c.end()
			return false
		}
		c.watch() // so that it can be parked
		c.startHTTP2()
		return true
	}
	c.watch()
	return !c.mayAwait() || !c.await()
}

// negotiated returns the protocol chosen by ALPN. It is not inlined, or the TLS
// state would stay on the stack during every request of the connection.
//
//go:noinline
func negotiated(t *tls.Conn) string { return t.ConnectionState().NegotiatedProtocol }

// loop serves requests until the connection ends or is settled.
func (c *byteConn) loop() {
	settle, serving := false, false
	defer func() {
		if p := recover(); p != nil { // of the connection itself, which may be the host's
			err := recovered(c.srv.logger(), p, "connection")
			c.ends.atLeast(endsBroken)
			if serving {
				c.x.Record.Termination, c.x.Record.Err = endOf(l4.Internal, l4.PhaseData), err
				c.endRecord()
			}
		} else if serving { // the handler has ended its goroutine
			c.x.Record.Termination, c.x.Record.Err = endOf(l4.Internal, l4.PhaseData), errNoReturn
			c.abort()
			c.finishExchange()
		}
		if !settle {
			c.end()
		}
	}()
	for {
		if c.h2 != nil {
			if settle = c.h2.run(); settle {
				c.h2.rest()
				c.settle()
			}
			return
		}
		if c.served == 1 && c.mayAwait() {
			if settle = c.await(); settle {
				return
			}
		}
		more, idle := c.next()
		if idle {
			settle = true
			c.settle()
			return
		}
		if c.h2 != nil { // the preface of HTTP/2 was read
			continue
		}
		if !more {
			return
		}
		serving = true
		c.serve()
		more = c.finishExchange()
		if serving = false; !more {
			return
		}
	}
}

// end closes the connection if it is still ours.
func (c *byteConn) end() {
	c.cancel()
	if c.h2 != nil {
		c.h2.end()
	}
	_ = quietly(c.srv.logger(), c.letGo)
	c.owns.end()
	c.release()
	c.giveWork()
	c.srv.late.remove(c)
	c.srv.forget(c)
	c.srv.wg.Done()
}

// letGo closes the connection, unless it has another owner.
func (c *byteConn) letGo() {
	switch {
	case c.c == nil:
		if c.ends != endsHanded {
			_ = c.nc.Close()
		}
	case c.ends == endsHanded:
		c.unwatch()
	default:
		defer c.c.Close() // also if what follows panics
		if pipelined := !c.in.empty(); c.ends == endsLate || c.ends == endsClosed && pipelined {
			c.waitForClose()
		}
		if c.watched != nil && c.watched != c.c {
			c.unwatch()
		}
	}
}

// shut closes the connection, for code that does not serve it.
func (c *byteConn) shut() {
	_ = quietly(c.srv.logger(), func() {
		if c.c == nil {
			_ = c.nc.Close()
		} else {
			_ = c.c.Close()
		}
	})
}

// release returns the buffers to their pools.
func (c *byteConn) release() {
	c.in.release(&c.srv.buffers)
	c.srv.pool.Put(c.out)
	c.out = nil
}

// waitForClose lets a client that is still sending read the reply: closing a
// socket with unread bytes would reset the connection, and the reply would be
// lost (RFC 9112, section 9.6).
func (c *byteConn) waitForClose() { waitForClose(c.c, &c.srv.pool) }

func waitForClose(c *l4.Conn, pool *l4.BufferPool) {
	if c.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	b := pool.Get()
	defer pool.Put(b)
	for n := 0; n < lingerBytes; {
		m, err := c.Read(b.B[:cap(b.B)])
		if err != nil {
			return
		}
		n += m
	}
}

// cut closes the connection while it is in use, and interrupts the work for it.
func (c *byteConn) cut() {
	if c.state.is(stateParked) {
		c.closeParked()
		return
	}
	busy := c.state.is(stateBusy) // otherwise the last reply may still be on its way
	_ = quietly(c.srv.logger(), func() {
		if busy {
			l4.Abort(c.raw)
		}
		_ = c.raw.Close()
	})
	c.clientGone()
}

// serve runs the handler tree.
func (c *byteConn) serve() {
	x := &c.x
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	c.beginPeek()
	if c.srv.misdirects(x, &c.hosts) {
		x.Error(http.StatusMisdirectedRequest, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	c.srv.announces(x)
	Serve(c.srv.handler(), x)
	x.mustReply()
}

// panicked ends an exchange whose handler panicked: with a reply if none has
// begun, else by cutting the connection.
func (c *byteConn) panicked(p any) {
	x := &c.x
	x.Record.Err = recovered(c.srv.logger(), p, "handler", "path", x.Path)
	if c.ends == endsHanded {
		x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
		return
	}
	if c.rep.begun || c.ends == endsBroken || p == http.ErrAbortHandler {
		x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
		x.replied = true
		c.abort()
		return
	}
	c.ends.atLeast(endsClosed)
	x.failed500()
}

// finishExchange sends what is left of the reply, completes the record and
// reports whether the connection can serve another request.
func (c *byteConn) finishExchange() bool {
	if c.ends != endsHanded {
		c.endLoan()
	}
	c.stopPeek()
	if c.ends == endsHanded { // and its new owner is done with it
		c.x.lent.takeBack(nil)
		c.endRecord()
		return false
	}
	if c.ends != endsBroken && !c.rep.done {
		c.abort() // the handler wrote less than it announced
	}
	if c.ends != endsBroken && !c.drain() {
		c.ends.atLeast(endsLate)
	}
	if c.flushLast() != nil && completed(c.x.Record.Termination) {
		c.x.Record.Termination = endOf(l4.ClientAborted, l4.PhaseData)
	}
	c.endRecord()
	if c.out != nil {
		c.srv.pool.Put(c.out)
		c.out = nil
	}
	return !c.ends.closes() && !c.gone.Load()
}

// endRecord completes the record of the exchange.
func (c *byteConn) endRecord() {
	if t := &c.x.Record.Termination; t.Cause == l4.ClientAborted && c.srv.cutting.Load() {
		t.Cause = l4.Killed
	}
	c.srv.ended(&c.x)
}

// drain reads the rest of the request body if it is short, so that the
// connection can serve another request.
func (c *byteConn) drain() bool {
	if c.req.ended() {
		return true
	}
	if c.ends.closes() || c.x.expect || c.req.failed || c.req.left > maxUnread {
		return false
	}
	_ = c.flush() // the client may wait for the reply before it sends the rest
	b := c.srv.pool.Get()
	defer c.srv.pool.Put(b)
	for n := 0; n < maxUnread; {
		m, err := c.readBody(b.B[:cap(b.B)])
		if n += m; err != nil {
			return c.req.ended()
		}
	}
	return false
}

// withTLS returns h as a connection from which net/http fills in Request.TLS.
func (c *byteConn) withTLS(h *handedConn) net.Conn {
	if c.from.tls != nil {
		return &handedTLS{h, *c.from.tls}
	}
	return h
}

func (c *byteConn) logger() *slog.Logger { return c.srv.logger() }
func (c *byteConn) observed() bool       { return c.srv.OnDone != nil }

// context returns that of the connection: in HTTP/1 a client disconnects by
// closing it.
func (c *byteConn) context() context.Context { return c.ctx }

func (c *byteConn) attach(u interrupter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upstream = u
	if c.gone.Load() {
		u.interrupt()
	}
}

func (c *byteConn) detach() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upstream = nil
	return true
}

// clientGone is called, by another goroutine, when the client has closed its side.
func (c *byteConn) clientGone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone.Store(true)
	c.cancel()
	if c.upstream != nil {
		c.upstream.interrupt()
	}
}

func (c *byteConn) session(need bool) usage {
	if need && c.owns == nil {
		c.owns = new(session)
	}
	return usage{c.owns, c.served == 1}
}

func (c *byteConn) limits() (clientLimits, bool) { return c.srv.clientLimits(), true }
func (c *byteConn) parker() *l4.Parker           { return c.srv.parking.peek() }
func (c *byteConn) probe()                       { probe(c.raw) }
func (c *byteConn) lost() bool                   { return false }
func (c *byteConn) endedByHandler() bool         { return false }
