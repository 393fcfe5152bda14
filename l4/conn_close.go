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

// OnClose has f called once when the connection is closed, by whoever closes
// it: at once if it is closed already. It is for handlers that keep count of
// connections, since those may outlive ServeConn. f must not block. It is added
// to the innermost Conn that c wraps, so that it does not matter which layer is
// closed. It may be called at any time by anybody. If f panics, that is logged.
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
	if c.closed.Load() { // Close may have come too early to see h
		c.runCloseHooks()
	}
}

// runCloseHooks calls the hooks that nobody has called yet, the last first.
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
