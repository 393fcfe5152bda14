// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
)

// checks walks a tree of handlers. It comes to each only once, so that a tree
// may lead back to itself: a Router whose route rewrites the path may hand on
// to that Router again.
type checks struct {
	penstock.Mistakes
	seen map[checker]bool
}

// A checker is a pointer to a literal that others may hold.
type checker interface{ check(c *checks) }

// checkAll returns what is wrong with v and what it holds.
func checkAll(v checker) error {
	c := checks{seen: map[checker]bool{v: true}}
	v.check(&c)
	return c.Err()
}

// in adds the mistakes of what a field holds.
func (c *checks) in(field string, v any) {
	w, ok := v.(checker)
	if !ok {
		c.In(field, v)
		return
	}
	var nothing penstock.Mistakes
	if nothing.Need(field, v, ""); c.seen[w] || nothing.Err() != nil {
		return
	}
	c.seen[w] = true
	below := checks{seen: c.seen}
	w.check(&below)
	c.Add(field, below.Err())
}

// next adds what is wrong with the handler of a field that must have one.
func (c *checks) next(field string, h http.Handler) {
	c.Need(field, h, "must be the handler that goes on")
	c.in(field, h)
}

// name adds a mistake if a field must hold a name: of a header field, a cookie,
// or a method. Empty is right if it means a default.
func (c *checks) name(field, name string, mayBeEmpty bool) {
	c.If(!isToken(name) && !(name == "" && mayBeEmpty), field, name, "must be a name of letters, digits and !#$%&'*+-.^_`|~ (RFC 9110, section 5.6.2)")
}

// status adds a mistake for what is no status of a final reply; 0 means a default.
func (c *checks) status(field string, status int) {
	c.If(status != 0 && (status < 200 || status > 599), field, status, "must be the status of a final reply, from 200 to 599")
}

// prefix adds a mistake if a field holds something else than the beginning of a path.
func (c *checks) prefix(field, path string) {
	c.If(path != "" && !pathOK(path), field, path, "must begin with a slash, and be as in a request")
}

const notNegative = "must not be negative"

// checked is part of the handlers that check themselves before they first serve
// a request for a server that is not ours. It is a plain number, so that their
// literals may be copied.
type checked struct{ good uint32 }

func (c *checked) first() *checked { return c }

// firstUse returns what is wrong with h, until nothing is.
func firstUse(h http.Handler) error {
	f, ok := h.(interface {
		checker
		first() *checked
	})
	if !ok {
		return nil
	}
	good := &f.first().good
	if atomic.LoadUint32(good) != 0 {
		return nil
	}
	err := checkAll(f)
	if err == nil {
		atomic.StoreUint32(good, 1)
	}
	return err
}

// misconfigured answers in place of a handler that cannot.
func (x *Exchange) misconfigured(err error) {
	x.down.logger().Error("l7: handler cannot serve", "path", x.Path, "error", err)
	x.Record.Err = err
	x.Error(http.StatusInternalServerError, endOf(l4.Internal, l4.PhaseRequest))
}

// Check returns what is wrong with s and its tree of handlers, each mistake a
// [*penstock.ConfigError] whose Field is the path to it:
// Server.Handler.Router.Routes[2].Handler.Proxy.Pool. Serve and its relatives
// call it. A handler or matcher of a host's own takes part if it has a Check.
func (s *Server) Check() error { return checkAll(s) }

func (s *Server) check(c *checks) {
	c.in("Server.Handler", s.handler())
	c.If(s.MaxStreams < 0, "Server.MaxStreams", s.MaxStreams, notNegative)
}

// Check returns what is wrong with r, its matchers and its handlers.
func (r *Router) Check() error { return checkAll(r) }

func (r *Router) check(c *checks) {
	c.If(r.Order > Specific, "Router.Order", uint8(r.Order), "must be Listed or Specific")
	c.in("Router.NotFound", r.NotFound)
	if t := r.table.Load(); t != nil {
		c.routes(t.routes)
	}
}

func (c *checks) routes(routes []Route) {
	for i := range routes {
		if routes[i].Handler != nil {
			c.in(fmt.Sprintf("Router.Routes[%d].Handler", i), routes[i].Handler)
		}
	}
}

// Check returns what is wrong with f.
func (f HandlerFunc) Check() error {
	var m penstock.Mistakes
	m.Need("HandlerFunc", f, "must be a func")
	return m.Err()
}
