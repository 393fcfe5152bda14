// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
)

// A RouteExplanation says whether one route matches an exchange and, if not,
// which matcher does not.
type RouteExplanation struct {
	Index   int // in the list given to Set
	Route   string
	Matches bool
	Taken   bool         // it is the route that would serve
	Why     string       // the matcher that does not match, such as "Method(GET)"; "" for a match
	Handler http.Handler // of the route
}

func (e RouteExplanation) String() string {
	switch {
	case e.Taken:
		return fmt.Sprintf("%d %q: taken", e.Index, e.Route)
	case e.Matches:
		return fmt.Sprintf("%d %q: matches, but comes later", e.Index, e.Route)
	}
	return fmt.Sprintf("%d %q: no %s", e.Index, e.Route, e.Why)
}

// Explain returns, for each route in the order of the list, whether it matches
// x. It calls every matcher and does not use the index.
func (r *Router) Explain(x *Exchange) []RouteExplanation {
	t := r.table.Load()
	if t == nil {
		return nil
	}
	list := make([]RouteExplanation, len(t.routes))
	for i, route := range t.routes {
		why, matches := explain(route.Match, x, 0)
		list[i] = RouteExplanation{Index: i, Route: route.Name, Matches: matches, Why: why, Handler: route.Handler}
	}
	if c := t.find(x); c != nil {
		list[c.route].Taken = true
	}
	return list
}

// ExplainRequest is [Router.Explain] for a request of net/http: one that was
// received, or one that was made to find out its route. It is nil for a request
// that a gateway would refuse.
func (r *Router) ExplainRequest(req *http.Request) []RouteExplanation {
	s := newStandardExchange(noWriter{}, req, nil)
	if s.parse() != nil {
		return nil
	}
	return r.Explain(s.x)
}

// explain names the matcher in m that does not match x, or reports a match. M lies inside
// that many Narrowers.
func explain(m Matcher, x *Exchange, within int) (why string, ok bool) {
	switch m := m.(type) {
	case nil:
		return "", true
	case All:
		for _, m := range m {
			if why, ok := explain(m, x, within); !ok {
				return why, false
			}
		}
		return "", true
	case Any:
		var whys []string
		for _, m := range m {
			why, ok := explain(m, x, within)
			if ok {
				return "", true
			}
			whys = append(whys, why)
		}
		return "any of [" + strings.Join(whys, ", ") + "]", false
	case Narrower:
		if within < maxWithin {
			if why, ok := explain(m.Within(), x, within+1); !ok {
				return why, false
			}
		}
		if m.Match(x) {
			return "", true
		}
	default:
		if matches(m, x, within) {
			return "", true
		}
	}
	return describe(m), false
}

// describe formats a matcher roughly as in code.
func describe(m Matcher) string {
	v := reflect.ValueOf(m)
	name := strings.TrimPrefix(v.Type().String(), "l7.")
	switch m := m.(type) {
	case fmt.Stringer: // *regexp.Regexp within
		return fmt.Sprintf("%s(%s)", name, m)
	case not:
		return "Not(" + describe(m.m) + ")"
	case Header:
		return describeNamed(name, m.Name, m.Value, m.Test != nil)
	case Cookie:
		return describeNamed(name, m.Name, m.Value, m.Test != nil)
	case Query:
		return describeNamed(name, m.Name, m.Value, m.Test != nil)
	case ClientCert:
		return fmt.Sprintf("ClientCert(subject %q, issuer %q)", m.Subject, m.Issuer)
	}
	if v.Kind() == reflect.Func {
		return name
	}
	return fmt.Sprintf("%s(%v)", name, m)
}

func describeNamed(kind, name, value string, test bool) string {
	switch {
	case test:
		value = " func"
	case value != "":
		value = "=" + value
	}
	return kind + "(" + name + value + ")"
}
