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

// checks walks a tree of handlers. It visits each only once, so a tree may have
// cycles: a Router whose route rewrites the path may pass on to that Router
// again.
type checks struct{ *penstock.Mistakes }

// A checker is a literal that other literals may hold.
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

// optional adds what is wrong with the handler of a field that may be nil. An
// interface with a nil pointer in it is a mistake.
func (c *checks) optional(field string, h http.Handler) {
	if h != nil {
		c.Need(field, h, "must be nil or hold a handler, not a nil pointer")
	}
	c.in(field, h)
}

// next adds what is wrong with the handler of a required field.
func (c *checks) next(field string, h http.Handler) {
	c.Need(field, h, "must be the handler that goes on")
	c.in(field, h)
}

// name adds a mistake if a field does not hold the name of a header field, a
// cookie, or a method. MayBeEmpty says that empty means a default.
func (c *checks) name(field, name string, mayBeEmpty bool) {
	c.If(!isToken(name) && !(name == "" && mayBeEmpty), field, name, "must be a name of letters, digits and !#$%&'*+-.^_`|~ (RFC 9110, section 5.6.2)")
}

// editable adds a mistake if a field is not the name of one that an edit has an effect on.
func (c *checks) editable(field, name string) {
	c.name(field, name, false)
	k := kindOf(name)
	c.If(k == kindHost, field, name, "has no effect as a field: set Rewrite.Host")
	c.If(k.owned() && k != kindHost && k != kindUpgrade, field, name, "has no effect: the proxy writes this field itself, for each connection")
}

// status adds a mistake if a field is not the status of a final reply; 0 means a
// default.
func (c *checks) status(field string, status int) {
	c.If(status != 0 && (status < 200 || status > 599), field, status, "must be the status of a final reply, from 200 to 599")
}

// prefix adds a mistake if a field does not hold the beginning of a path.
func (c *checks) prefix(field, path string) {
	c.If(path != "" && !pathOK(path), field, path, "must begin with a slash, and be as in a request")
}

const notNegative = "must not be negative"

// checked is embedded in handlers that check themselves at their first request
// under a foreign server. It is a plain number, so that the literals may be
// copied.
type checked struct{ good uint32 }

func (c *checked) first() *checked { return c }

// firstUse returns what is wrong with h. Once nothing is, it does not check again.
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

// misconfigured answers 500 in place of a handler that is misconfigured.
func (x *Exchange) misconfigured(err error) {
	x.down.logger().Error("l7: handler cannot serve", "path", x.Path, "error", err)
	x.Record.Err = err
	x.Error(http.StatusInternalServerError, endOf(l4.Internal, l4.PhaseRequest))
}

// prefixes adds a mistake for each prefix that no address can match.
func (c *checks) prefixes(field string, list []netip.Prefix) {
	for i, p := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		c.If(!p.IsValid(), at, p, "must be a prefix, such as 10.0.0.0/8")
		c.If(p.Addr().Is4In6(), at, p, "must be written as IPv4: addresses are compared as that")
	}
}
