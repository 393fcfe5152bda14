// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
)

// checks walks a tree of handlers. It visits each only once, so a tree may have cycles: a
// Router may have a TerminateTLS whose Next is the same Router.
type checks struct{ *penstock.Mistakes }

// A checker is a literal that others may hold.
type checker interface{ check(c *checks) }

// newChecks returns the checks that begin a walk.
func newChecks() *checks { return &checks{new(penstock.Mistakes)} }

// checkAll returns what is wrong with v and what it holds.
func checkAll(v checker) error {
	c := newChecks()
	c.in("", v)
	return c.Err()
}

// in adds the mistakes of what a field holds.
func (c *checks) in(field string, v any) {
	if w, ok := v.(checker); ok {
		c.Once(field, w, func(m *penstock.Mistakes) { w.check(&checks{m}) })
	} else {
		c.In(field, v)
	}
}

// optional adds what is wrong with the handler of a field that may be nil. An interface
// with a nil pointer in it is a mistake.
func (c *checks) optional(field string, h Handler) {
	if h != nil {
		c.Need(field, h, "must be left out, or hold a handler: there is a nil pointer in it")
	}
	c.in(field, h)
}

// limiter adds what is wrong with the limiter of a field that may be nil.
func (c *checks) limiter(field string, l any) {
	if l != nil {
		c.Need(field, l, "must be left out, or hold a limiter: there is a nil pointer in it")
	}
	c.in(field, l)
}

// next adds what is wrong with the handler of a required field.
func (c *checks) next(field string, h Handler) {
	c.Need(field, h, "must be the handler that goes on")
	c.in(field, h)
}

// checked is part of the handlers that check themselves before they first serve
// a connection. It is a plain number, so that their literals may be copied.
type checked struct{ good uint32 }

// first returns what is wrong with v, of which c is a part. Once v is found right it is
// not checked again.
func (c *checked) first(v checker) error {
	if atomic.LoadUint32(&c.good) != 0 {
		return nil
	}
	err := checkAll(v)
	if err == nil {
		atomic.StoreUint32(&c.good, 1)
	}
	return err
}

// misconfigured ends a connection that cannot be served.
func misconfigured(c net.Conn, err error) error {
	endConn(c, Termination{Internal, PhaseRequest}, err)
	Abort(c)
	c.Close()
	return err
}

const notNegative = "must not be negative"

// Check returns what is wrong with s and its tree of handlers, each mistake a
// [*penstock.ConfigError] whose Field is the path to it:
// Server.Handler.Router.Routes[2].Handler.Proxy.Pool. [Server.Serve] calls it. A handler
// of your own is checked too if it has a Check.
func (s *Server) Check() error { return checkAll(s) }

func (s *Server) check(c *checks) { c.next("Server.Handler", s.Handler) }

// Check returns what is wrong with lc. [ListenConfig.Listen] calls it.
func (lc *ListenConfig) Check() error {
	var m penstock.Mistakes
	m.In("ListenConfig.Socket", lc.Socket)
	return m.Err()
}

// Check returns what is wrong with o.
func (o SocketOptions) Check() error {
	var m penstock.Mistakes
	m.If(o.UserTimeout < 0, "SocketOptions.UserTimeout", o.UserTimeout, notNegative)
	return m.Err()
}
