// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/bits"
	"strings"
)

// A table is the index of a Router's routes. Each route is split into clauses,
// the alternatives of its matcher. A clause has at most one host and one path,
// and conditions for the rest. It is indexed under these:
//
//	exact host "api.example"   exact path   "/"         -> clauses by rank
//	                           prefix       "/v1"       -> clauses by rank
//	                           any path                 -> clauses by rank
//	wildcard   ".example"      ...
//	any host                   ...
//
// A lookup visits the node of the request's host, those of the wildcards above
// it, and that of any host; in each it looks up the path and its prefixes. The
// clause of lowest rank whose conditions hold wins. The number of lookups
// depends on the labels of the host and the elements of the path, up to the
// deepest in the table, and not on the number of routes.
type table struct {
	routes  []Route
	tallies []*tally // of each route

	exact    map[string]*node
	wild     map[string]*node // by the part behind the *
	wildLens uint64           // bit n: there is a wildcard with n dots (63: or more)
	wildMax  int              // the length of the longest
	any      *node
}

// A node has the clauses of one host.
type node struct {
	exact   map[string][]clause
	prefix  map[string][]clause
	depths  uint64   // bit n: there is a prefix of n elements (63: or more)
	longest int      // length of the longest prefix, which bounds the lookups
	rest    []clause // clauses whose path is not indexed
}

type clause struct {
	rank     int32
	route    int32
	conds    []Matcher // all must match; without the indexed host and path
	captures Matcher   // the matcher for PathValue, or nil
}

// find returns the clause for x, or nil.
func (t *table) find(x *Exchange) *clause {
	host := hostOf(x.Host)
	var best *clause
	if n := t.exact[host]; n != nil {
		best = n.find(x, best)
	}
	if t.wildLens != 0 {
		dots := 0
		for i := len(host) - 1; i > 0 && len(host)-i <= t.wildMax; i-- {
			if host[i] != '.' {
				continue
			}
			if dots++; t.wildLens&depthBit(dots) == 0 {
				continue
			}
			if n := t.wild[host[i:]]; n != nil {
				best = n.find(x, best)
			}
		}
	}
	if t.any != nil {
		best = t.any.find(x, best)
	}
	return best
}

// find returns the better of best and the best clause of n that matches.
func (n *node) find(x *Exchange, best *clause) *clause {
	best = first(n.rest, x, best)
	if len(n.exact) > 0 {
		best = first(n.exact[x.Path], x, best)
	}
	if n.depths == 0 || x.Path == "" || x.Path[0] != '/' {
		return best
	}
	deepest := 64 - bits.LeadingZeros64(n.depths)
	depth := 0
	for i := 0; i < len(x.Path); i++ {
		if i > n.longest {
			return best
		}
		if x.Path[i] != '/' {
			continue
		}
		if n.depths&depthBit(depth) != 0 {
			best = first(n.prefix[x.Path[:i]], x, best)
		}
		if depth++; depth >= deepest && deepest < 64 {
			return best
		}
	}
	if n.depths&depthBit(depth) != 0 && len(x.Path) <= n.longest {
		best = first(n.prefix[x.Path], x, best)
	}
	return best
}

// depthBit returns the bit for that many elements or dots.
func depthBit(n int) uint64 { return 1 << min(n, 63) }

// first returns the first clause of list that matches, if its rank is lower than that
// of best.
func first(list []clause, x *Exchange, best *clause) *clause {
next:
	for i := range list {
		c := &list[i]
		if best != nil && c.rank >= best.rank {
			return best
		}
		for _, m := range c.conds {
			if !m.Match(x) {
				continue next
			}
		}
		return c
	}
	return best
}

func (n *node) add(p pathKey, c clause) {
	switch p.kind {
	case pathExact:
		n.exact = appendClause(n.exact, p.text, c)
	case pathPrefix:
		n.prefix = appendClause(n.prefix, p.text, c)
		n.depths |= depthBit(strings.Count(p.text, "/"))
		n.longest = max(n.longest, len(p.text))
	default:
		n.rest = append(n.rest, c)
	}
}

func appendClause(m map[string][]clause, key string, c clause) map[string][]clause {
	if m == nil {
		m = make(map[string][]clause)
	}
	m[key] = append(m[key], c)
	return m
}

// add adds a clause to the index. Clauses are added in the order of their rank.
func (t *table) add(s *spec, c clause) {
	suffix, wild := strings.CutPrefix(s.host, "*")
	switch {
	case s.host == "*":
		if t.any == nil {
			t.any = new(node)
		}
		t.any.add(s.path, c)
		return
	case wild:
		t.wildLens |= depthBit(strings.Count(suffix, "."))
		t.wildMax = max(t.wildMax, len(suffix))
		t.wild = addNode(t.wild, suffix, s.path, c)
	default:
		t.exact = addNode(t.exact, s.host, s.path, c)
	}
}

func addNode(m map[string]*node, host string, p pathKey, c clause) map[string]*node {
	if m == nil {
		m = make(map[string]*node)
	}
	n := m[host]
	if n == nil {
		n = new(node)
		m[host] = n
	}
	n.add(p, c)
	return m
}
