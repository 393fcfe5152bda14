// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
)

// A Router passes each exchange to one of its routes: the first that matches,
// in the order that Order says. The zero Router has no routes. [NewRouter] and
// [Router.Set] set them; Set may be called while the router serves.
//
// Routes are found by an index over the exact and wildcard hosts and the paths,
// prefixes and patterns of their matchers, so a lookup among ten thousand is as
// fast as among ten. Other conditions are tried only for the routes of that
// host and path. The handler of a route may be another router.
//
// All methods may be called at once.
type Router struct {
	// Order says which of several matching routes is used.
	Order Order

	// NotFound answers exchanges that no route matches; nil means 404.
	NotFound http.Handler

	checked
	set   sync.Mutex // held while table is replaced
	table atomic.Pointer[table]
}

// A Route is a handler and the matcher of its exchanges.
type Route struct {
	Name    string       // for records, errors and Explain; need not be unique
	Match   Matcher      // nil matches everything
	Handler http.Handler // must not be nil

	// Priority takes precedence over the computed order under Specific: higher
	// first. Under Listed it must be 0.
	Priority int
}

// Order is how routes are ordered.
type Order uint8

const (
	// Listed tries routes in the order of the list. It is an error if a route can
	// never be reached because an earlier one matches everything that it does.
	Listed Order = iota

	// Specific uses the most specific route, in the order of the Kubernetes
	// Gateway API, extended to matchers that it does not have. After Priority:
	//
	//  1. an exact host, then the longer wildcard, then a regexp, then any
	//  2. an exact path, then a regexp or suffix, then the pattern or prefix
	//     with more literal bytes, then any
	//  3. a method
	//  4. more header fields
	//  5. more query parameters
	//  6. more of everything else, including matchers of your own
	//
	// It is an error if this does not order two routes that one request could
	// match: give one a Priority. An Any counts as one route for each of its
	// alternatives.
	Specific
)

// NewRouter returns a router with the routes in the order of the list. It
// panics if something is wrong with them; [Router.Set] returns an error
// instead.
func NewRouter(routes ...Route) *Router {
	var r Router
	if err := r.Set(routes...); err != nil {
		panic(err)
	}
	return &r
}

// Set replaces all routes, atomically: an exchange sees the old table or the
// new one. If it fails the old table stays; the error joins a [*RouteError] for
// each faulty route (the first 20), and the mistakes of the handlers (see
// [Router.Check]).
func (r *Router) Set(routes ...Route) error {
	t, err := newTable(r.Order, routes)
	c := newChecks()
	c.Once("", r, func(m *penstock.Mistakes) { (&checks{m}).routes(routes) })
	if err := errors.Join(err, c.Err()); err != nil {
		return err
	}
	r.set.Lock()
	defer r.set.Unlock()
	t.inherit(r.table.Load())
	r.table.Store(t)
	return nil
}

// A RouteError says what is wrong with a route of a table.
type RouteError struct {
	Index  int    // of the route in the list
	Route  string // its name
	Reason string

	config penstock.ConfigError
}

// Unwrap returns the mistake as a [*penstock.ConfigError], whose Field is
// Router.Routes[i].Match or another field of the route.
func (e *RouteError) Unwrap() error { return &e.config }

func (e *RouteError) Error() string {
	return "l7: " + routeName(e.Index, e.Route) + " " + e.Reason
}

// routeName is what errors call a route.
func routeName(index int, name string) string {
	if name == "" {
		return "route " + strconv.Itoa(index)
	}
	return "route " + strconv.Itoa(index) + " " + quote(name)
}

// ServeExchange implements [Handler].
func (r *Router) ServeExchange(x *Exchange) {
	t := r.table.Load()
	if t == nil {
		r.notFound(x)
		return
	}
	c := t.find(x)
	if c == nil {
		r.notFound(x)
		return
	}
	if c.captures != nil {
		captureKey.Set(x, captured{c.captures, x.Path})
	}
	route := &t.routes[c.route]
	x.Record.Route = route.Name
	defer t.tallies[c.route].noteRoute(x)
	Serve(route.Handler, x)
}

func (r *Router) notFound(x *Exchange) {
	if r.NotFound != nil {
		Serve(r.NotFound, x)
		return
	}
	x.Error(http.StatusNotFound, endOf(l4.Denied, l4.PhaseRequest))
}

// ServeHTTP implements [http.Handler].
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) { ServeHTTP(r, w, req) }

// Check returns what is wrong with r, its matchers and its handlers.
func (r *Router) Check() error { return checkAll(r) }

func (r *Router) check(c *checks) {
	c.If(r.Order > Specific, "Router.Order", uint8(r.Order), "must be a constant of type l7.Order: Listed or Specific")
	c.optional("Router.NotFound", r.NotFound)
	if t := r.table.Load(); t != nil {
		c.routes(t.routes)
	}
}

func (c *checks) routes(routes []Route) {
	for i := range routes {
		c.optional(fmt.Sprintf("Router.Routes[%d].Handler", i), routes[i].Handler)
	}
}
