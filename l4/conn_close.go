// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"log/slog"
	"net"
)

// A closeHook is what a Conn does when it is closed.
type closeHook struct {
	f    func()
	next *closeHook
}

// OnClose registers f to be called once when the connection is closed by any
// caller, or at once if it is already closed. It is for handlers that count
// connections, which may outlive ServeConn. f must not block. It is added to
// the innermost Conn that c wraps, so it does not matter which layer is closed.
// OnClose may be called at any time by any goroutine. If f panics, that is
// logged.
func (c *Conn) OnClose(f func()) {
	var nc net.Conn = c
	for nc != nil {
		if inner, ok := nc.(*Conn); ok {
			c = inner
		}
		w, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = w.NetConn()
	}
	h := &closeHook{f: f}
	for {
		h.next = c.closing.Load()
		if c.closing.CompareAndSwap(h.next, h) {
			break
		}
	}
	if c.flags.has(isClosed) { // Close may have come too early to see h
		c.runCloseHooks()
	}
}

// runCloseHooks calls the remaining hooks, the last one first.
func (c *Conn) runCloseHooks() {
	h := c.closing.Swap(nil)
	if h == nil {
		return
	}
	var l *slog.Logger
	if s := c.member.server; s != nil {
		l = s.Logger
	}
	for ; h != nil; h = h.next {
		guard(l, "function of OnClose", h.f)
	}
}
