// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"sync"
)

type drainingKey struct{}

// Draining returns a channel that is closed when the server that ctx comes from begins to
// shut down. A handler then ends its work in the way its protocol provides for. For other
// contexts the channel is nil, and never ready.
func Draining(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(drainingKey{}).(chan struct{})
	return ch
}

// AfterDraining registers f to be called once when a server that has accepted c, or a
// connection that c wraps, begins to shut down, or at once if it has begun. It is for
// code that serves connections from a [Listener] and does not have their context:
// l7.Server uses it to tell its clients, as in its own Shutdown. For a connection that
// no Server has accepted it does nothing. f must not block. If it panics, that is
// logged.
func AfterDraining(c net.Conn, f func()) {
	once := false
	for c != nil {
		if conn, ok := c.(*Conn); ok && conn.member.server != nil {
			if !once { // there may be another server below
				f, once = sync.OnceFunc(f), true
			}
			conn.afterDraining(f)
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = w.NetConn()
	}
}

// afterDraining is AfterDraining for one server.
func (c *Conn) afterDraining(f func()) {
	h := &closeHook{f: f}
	for {
		h.next = c.draining.Load()
		if c.draining.CompareAndSwap(h.next, h) {
			break
		}
	}
	s := c.member.server
	s.mu.Lock()
	told := s.told
	s.mu.Unlock()
	if told { // perhaps too early to see h
		c.runDrainHooks()
	}
}

// runDrainHooks calls the hooks of AfterDraining that have not been called yet.
func (c *Conn) runDrainHooks() {
	for h := c.draining.Swap(nil); h != nil; h = h.next {
		guard(c.member.server.Logger, "function of AfterDraining", h.f)
	}
}
