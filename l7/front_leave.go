// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A connection is drained in two steps. First its client is told: the next reply
// has Connection: close, and HTTP/2 gets a GOAWAY. For LameDuck the connection
// still waits for a request, since one may be in flight. After that it waits no
// more. All connections are drained when the server shuts down, and those that an
// l4.Server has accepted also when that one does.

// A connection whose first request has not come yet is not idle: its client has just
// connected, and would take its end for a failure. It has firstRequestTime to send it.

// leaving is how far a connection has been drained. The zero value is not draining.
type leaving struct {
	begun atomic.Bool // its first request has come, or it is one of HTTP/2, whose clients can be told
	told  atomic.Bool // ends after the current reply, or the next one
	out   atomic.Bool // does not wait for another request
}

// lameDuck tells all clients to leave and keeps serving for a while.
func (s *Server) lameDuck(ctx context.Context) {
	if s.LameDuck <= 0 {
		return
	}
	s.init()
	s.lame.Store(true)
	s.mu.Lock()
	conns := slices.Collect(s.conns.all())
	s.mu.Unlock()
	for _, c := range conns {
		c.tell()
	}
	t := time.NewTimer(s.LameDuck)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done: // by Close
	case <-ctx.Done():
	}
}

// tell tells the client at once, if the protocol can do so without a reply.
func (c *byteConn) tell() {
	if h := c.http2(); h != nil {
		go h.leave() // may have to wait for the client to read
	}
}

// endsSoon reports whether a reply is the last one of the connection.
func (c *byteConn) endsSoon() bool {
	return c.srv.stopping.Load() || c.srv.noKeepAlives.Load() || c.srv.lame.Load() || c.leaving.told.Load()
}

// outNow reports whether the connection ends as soon as it is idle.
func (c *byteConn) outNow() bool {
	return c.leaving.out.Load() || c.srv.stopping.Load() && c.leaving.begun.Load()
}

// drainIdle has the connection end as soon as it is idle.
func (c *byteConn) drainIdle() {
	out := func() {
		c.leaving.out.Store(true)
		c.interruptIdle()
	}
	if c.leaving.begun.Load() {
		out()
	} else {
		time.AfterFunc(firstRequestTime, out)
	}
}

// lingers reports whether the client has been told, or will be, and the connection
// still waits for a request.
func (c *byteConn) lingers() bool {
	return (c.srv.lame.Load() || c.leaving.told.Load()) && !c.outNow()
}

// leaves reports whether the connection must not wait for another request.
func (c *byteConn) leaves() bool {
	return c.outNow() || c.served > 0 && c.srv.noKeepAlives.Load()
}

// leaveWith drains the connection when the l4.Server that has accepted it shuts
// down.
func (c *byteConn) leaveWith() {
	if _, ok := c.raw.(interface{ NetConn() net.Conn }); !ok {
		return // of no l4.Server: the function would be garbage
	}
	l4.AfterDraining(c.raw, func() {
		c.leaving.told.Store(true)
		c.tell()
		c.srv.afterLameDuck(c.drainIdle)
	})
}

// afterLameDuck calls f when a connection that has been told may be closed.
func (s *Server) afterLameDuck(f func()) {
	if s.LameDuck > 0 {
		time.AfterFunc(s.LameDuck, f)
		return
	}
	f()
}

// leaveWith does so for the standard front.
func (h *handedConn) leaveWith() {
	l4.AfterDraining(h.Conn, func() {
		h.leaving.told.Store(true)
		h.srv.afterLameDuck(func() {
			h.leaving.out.Store(true)
			if h.idle.Load() {
				_ = h.Close()
			}
		})
	})
}

// noteState is the embedded server's ConnState.
func (s *Server) noteState(c net.Conn, state http.ConnState) {
	h := handedOf(c)
	if h == nil {
		return
	}
	idle := state == http.StateIdle
	h.idle.Store(idle)
	if state == http.StateHijacked {
		h.hijacked.Store(true)
	}
	if idle && h.leaving.out.Load() {
		_ = h.Close()
	}
}

// sayLast adds Connection: close to a reply of the standard front, if it is the
// last one.
func (s *standard) sayLast() {
	if s.srv == nil || s.r.ProtoMajor != 1 {
		return
	}
	s.srv.sayLast(s.w, s.handed())
}

// sayLast does so for a reply on h, which is nil if the connection is not known.
func (s *Server) sayLast(w http.ResponseWriter, h *handedConn) {
	if s.lame.Load() || h != nil && h.leaving.told.Load() {
		w.Header().Set("Connection", "close")
	}
}
