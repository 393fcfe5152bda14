// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"iter"
	"reflect"
	"strings"
)

// A weight is how specific a clause is. Weights are compared like words: the first
// difference decides.
type weight [7]int

// weigh returns the weight under the rules of [Specific].
func (s *spec) weigh() weight {
	host, path, literal, pattern := 0, 0, 0, 0
	switch {
	case s.host == "*":
	case s.host[0] == '*':
		host = 2 + len(s.host)
	default:
		host = 1 << 20
	}
	switch s.path.kind {
	case pathExact:
		path = 3
	case pathPrefix:
		path, literal = 1, len(s.path.text)
	}
	var method, headers, queries, others int
	for _, m := range s.conds {
		switch m := m.(type) {
		case HostRegexp:
			host = max(host, 1)
		case PathRegexp:
			path = max(path, 2)
		case PathSuffix:
			path, literal = max(path, 2), max(literal, len(m))
		case PathPattern:
			_, n := m.literal()
			path, literal = max(path, 1), max(literal, n)
			pattern = 1
		case Method:
			method = 1
		case Header, ContentType, Cookie:
			headers++
		case Query:
			queries++
		default:
			others++
		}
	}
	return weight{host, path, 2*literal + pattern, method, headers, queries, others}
}

// compare orders by priority and weight, the more specific first.
func (s *spec) compare(o *spec) int {
	if c := cmp.Compare(o.priority, s.priority); c != 0 {
		return c
	}
	for i := range s.weight {
		if c := cmp.Compare(o.weight[i], s.weight[i]); c != 0 {
			return c
		}
	}
	return 0
}

// overlaps reports clauses of different routes that compare as equal and
// could match the same request. Specs are sorted.
func overlaps(specs []*spec, routes []Route, fail func(int, string)) {
	type place struct {
		host string
		path pathKey
	}
	for start := 0; start < len(specs); {
		end := start + 1
		for end < len(specs) && specs[start].compare(specs[end]) == 0 {
			end++
		}
		group := make(map[place][]*spec)
		for _, s := range specs[start:end] {
			p := place{s.host, s.path}
			if s.path.kind != pathExact && s.looksInside() {
				p.path = pathKey{} // these may overlap, whatever they begin with
			}
			for _, o := range group[p] {
				if o.route != s.route && !s.disjoint(o) {
					fail(s.route, "is as specific as "+routeName(o.route, routes[o.route].Name)+", and a request can match both: give one a Priority")
					break
				}
			}
			group[p] = append(group[p], s)
		}
		start = end
	}
}

// looksInside reports whether a condition of s depends on the path.
func (s *spec) looksInside() bool {
	for _, m := range s.conds {
		switch m.(type) {
		case PathPattern, PathRegexp, PathSuffix:
			return true
		}
	}
	return false
}

// disjoint reports whether two clauses of one host and path have conditions
// that cannot both hold. If that cannot be decided, it is false.
func (s *spec) disjoint(o *spec) bool {
	for _, a := range s.conds {
		for _, b := range o.conds {
			if exclusive(a, b) {
				return true
			}
		}
	}
	return false
}

func exclusive(a, b Matcher) bool {
	switch a := a.(type) {
	case Method:
		b, ok := b.(Method)
		return ok && a != b
	case Scheme:
		b, ok := b.(Scheme)
		return ok && a != b
	case LocalPort:
		b, ok := b.(LocalPort)
		return ok && a != b
	case ALPN:
		b, ok := b.(ALPN)
		return ok && a != b
	case JA4:
		b, ok := b.(JA4)
		return ok && a != b
	case PathSuffix:
		b, ok := b.(PathSuffix)
		return ok && !strings.HasSuffix(string(a), string(b)) && !strings.HasSuffix(string(b), string(a))
	case PathPattern:
		b, ok := b.(PathPattern)
		return ok && !meet(string(a), string(b))
	case not:
		return reflect.DeepEqual(a.m, b)
	}
	if n, ok := b.(not); ok {
		return reflect.DeepEqual(a, n.m)
	}
	// Two values of a field exclude each other only if there can be just one line,
	// which is not guaranteed for Header, Cookie and Query.
	return false
}

// meet reports whether some path matches both patterns.
func meet(a, b string) bool {
	for a != "" && b != "" {
		var x, y string
		x, a = element(strings.TrimPrefix(a, "/"))
		y, b = element(strings.TrimPrefix(b, "/"))
		nx, wx := wildcard(x)
		ny, wy := wildcard(y)
		if wx && strings.HasSuffix(nx, "...") || wy && strings.HasSuffix(ny, "...") {
			return true
		}
		if !wx && !wy && x != y || wx && y == "" || wy && x == "" {
			return false
		}
	}
	return a == b
}

// covering returns the route of a clause of lower rank than s that matches
// everything that s does, as far as a comparison can tell.
func (t *table) covering(s *spec, rank int32) (route int, ok bool) {
	for n := range t.above(s.host) {
		for list := range n.above(s.path) {
			for i := range list {
				c := &list[i]
				if c.rank >= rank {
					break
				}
				if c.covers(s) {
					return int(c.route), true
				}
			}
		}
	}
	return 0, false
}

// covers reports whether each condition of c is also one of s.
func (c *clause) covers(s *spec) bool {
	for _, m := range c.conds {
		found := false
		for _, o := range s.conds {
			found = found || reflect.DeepEqual(m, o)
		}
		if !found {
			return false
		}
	}
	return true
}

// above yields the nodes of a host pattern and of all more general ones.
func (t *table) above(host string) iter.Seq[*node] {
	return func(yield func(*node) bool) {
		suffix, wild := strings.CutPrefix(host, "*")
		if !wild {
			if n := t.exact[host]; n != nil && !yield(n) {
				return
			}
		}
		for i := range suffix {
			if suffix[i] != '.' || i == 0 && !wild {
				continue
			}
			if n := t.wild[suffix[i:]]; n != nil && !yield(n) {
				return
			}
		}
		if t.any != nil {
			yield(t.any)
		}
	}
}

// above yields the clauses of a path and of all more general ones.
func (n *node) above(p pathKey) iter.Seq[[]clause] {
	return func(yield func([]clause) bool) {
		if !yield(n.rest) || p.kind == pathAny {
			return
		}
		if p.kind == pathExact && !yield(n.exact[p.text]) {
			return
		}
		for i := range p.text {
			if p.text[i] == '/' && !yield(n.prefix[p.text[:i]]) {
				return
			}
		}
		if !strings.HasSuffix(p.text, "/") {
			yield(n.prefix[p.text])
		}
	}
}
