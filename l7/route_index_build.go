// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/penstock-lb/penstock"
)

// A spec is a clause before it is added to the index.
type spec struct {
	route    int
	priority int
	host     string // clean Host pattern, "*" for any
	hasHost  bool
	path     pathKey
	conds    []Matcher
	weight   weight
}

type pathKind uint8

const (
	pathAny pathKind = iota
	pathPrefix
	pathExact
)

// A pathKey is the key of a clause in its node.
type pathKey struct {
	kind pathKind
	text string // without a trailing slash if it is a prefix
}

const (
	maxAlternatives = 256 // of one route; more are one condition
	maxRouteErrors  = 20
)

func newTable(order Order, routes []Route) (*table, error) {
	var specs []*spec
	var errs []error
	failed := func(i int, field string, value any, reason string) {
		if len(errs) < maxRouteErrors {
			at := fmt.Sprintf("Router.Routes[%d]%s", i, field)
			errs = append(errs, &RouteError{i, routes[i].Name, reason, penstock.ConfigError{Field: at, Value: value, Reason: reason}})
		}
	}
	fail := func(i int, reason string) { failed(i, ".Match", routes[i].Match, reason) }
	for i, r := range routes {
		switch {
		case r.Handler == nil:
			failed(i, ".Handler", nil, "has no handler")
		case order == Listed && r.Priority != 0:
			failed(i, ".Priority", r.Priority, "has a priority, but routes are taken as listed")
		}
		if p := problem(r.Match, 0); p != "" {
			fail(i, p)
			continue
		}
		for _, s := range alternatives(spec{route: i, priority: r.Priority, host: "*"}, r.Match) {
			s.weight = s.weigh()
			specs = append(specs, &s)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if order == Specific {
		slices.SortStableFunc(specs, func(a, b *spec) int { return a.compare(b) })
		overlaps(specs, routes, fail)
	}
	t := &table{routes: slices.Clone(routes)}
	for rank, s := range specs {
		t.add(s, clause{int32(rank), int32(s.route), s.conds, s.captures()})
	}
	unreachable(t, specs, fail)
	return t, errors.Join(errs...)
}

// alternatives returns the clauses of "s and m": s combined with each
// alternative of m. If there are too many, m becomes a condition.
func alternatives(s spec, m Matcher) []spec {
	switch m := m.(type) {
	case nil:
		return []spec{s}
	case All:
		list := []spec{s}
		for _, each := range m {
			var next []spec
			for _, before := range list {
				next = append(next, alternatives(before, each)...)
				if len(next) > maxAlternatives {
					return []spec{s.with(m)}
				}
			}
			list = next
		}
		return list
	case Any:
		if len(m) == 0 {
			return []spec{s.with(m)}
		}
		var list []spec
		for _, each := range m {
			list = append(list, alternatives(s, each)...)
			if len(list) > maxAlternatives {
				return []spec{s.with(m)}
			}
		}
		return list
	case Narrower:
		list := alternatives(s, m.Within()) // which has an end: see problem
		for i := range list {
			list[i] = list[i].with(m)
		}
		return list
	case Host:
		if !s.hasHost {
			s.host, s.hasHost = m.clean(), true
			return []spec{s}
		}
	case Path:
		if s.path.kind == pathAny {
			s.path = pathKey{pathExact, string(m)}
			return []spec{s}
		}
	case PathPrefix:
		if m.clean() == "" {
			return []spec{s}
		}
		if s.path.kind == pathAny {
			s.path = pathKey{pathPrefix, m.clean()}
			return []spec{s}
		}
	case PathPattern:
		if s.path.kind == pathAny {
			prefix, _ := m.literal()
			s.path = pathKey{pathPrefix, prefix}
		}
	}
	return []spec{s.with(m)}
}

// with returns s with one more condition.
func (s spec) with(m Matcher) spec {
	s.conds = append(slices.Clip(s.conds), m)
	return s
}

// captures returns the matcher for PathValue.
func (s *spec) captures() Matcher {
	for _, m := range s.conds {
		switch m := m.(type) {
		case PathPattern:
			if strings.Contains(string(m), "{") {
				return m
			}
		case PathRegexp:
			if m.NumSubexp() > 0 {
				return m
			}
		}
	}
	return nil
}

// problem returns what is wrong with a matcher inside that many Narrowers, or "".
func problem(m Matcher, within int) string {
	switch m := m.(type) {
	case nil:
		return ""
	case All:
		return problems(m, within)
	case Any:
		return problems(m, within)
	case not:
		if m.m == nil {
			return "has a Not of nil"
		}
		return problem(m.m, within)
	case Narrower:
		if within == maxWithin {
			return tooDeep
		}
		if p := problem(m.Within(), within+1); p != "" {
			return p
		}
	}
	if text, what := problemOf(m); what != "" {
		return fmt.Sprintf("has a bad matcher: %s(%q) %s", matcherName(m), text, what)
	}
	if c, ok := m.(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			return "has a bad matcher: " + err.Error()
		}
	}
	return ""
}

func problems(list []Matcher, within int) string {
	for _, m := range list {
		if m == nil {
			return "has a nil matcher in an All or Any"
		}
		if p := problem(m, within); p != "" {
			return p
		}
	}
	return ""
}

// unreachable reports each route whose clauses are all covered by clauses of
// lower rank of other routes.
func unreachable(t *table, specs []*spec, fail func(int, string)) {
	coveredBy := make(map[int]int) // route -> one that covers it
	reached := make(map[int]bool)
	for rank, s := range specs {
		if by, ok := t.covering(s, int32(rank)); ok {
			coveredBy[s.route] = by
		} else {
			reached[s.route] = true
		}
	}
	for _, route := range slices.Sorted(maps.Keys(coveredBy)) {
		if by := coveredBy[route]; !reached[route] && by != route {
			fail(route, "is never reached: "+routeName(by, t.routes[by].Name)+" matches all that it does")
		}
	}
}
