// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
)

// checks walks a tree of handlers. It comes to each only once, so that a tree
// may lead back to itself: a Router whose route rewrites the path may hand on
// to that Router again.
type checks struct{ *penstock.Mistakes }

// A checker is a literal that others may hold.
type checker interface{ check(c *checks) }

// newChecks returns what begins a walk.
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

// optional adds what is wrong with the handler of a field that may be left out. One
// that holds a nil pointer is not left out.
func (c *checks) optional(field string, h http.Handler) {
	if h != nil {
		c.Need(field, h, "must be left out, or hold a handler: there is a nil pointer in it")
	}
	c.in(field, h)
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

// prefixes adds a mistake for each prefix that no address is compared with.
func (c *checks) prefixes(field string, list []netip.Prefix) {
	for i, p := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		c.If(!p.IsValid(), at, p, "must be a prefix, such as 10.0.0.0/8")
		c.If(p.Addr().Is4In6(), at, p, "must be written as IPv4: addresses are compared as that")
	}
}
