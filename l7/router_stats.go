// SPDX-License-Identifier: Apache-2.0

package l7

import "iter"

// Stats yields the figures of each route, in the order of the list. Routes that one Set
// takes over from the last, by a Name that each of the two lists has once, go on
// counting. A route takes 512 bytes for them.
func (r *Router) Stats() iter.Seq[RouteStats] {
	return func(yield func(RouteStats) bool) {
		t := r.table.Load()
		if t == nil {
			return
		}
		for i, y := range t.tallies {
			st := RouteStats{Route: t.routes[i].Name}
			st.Requests, st.BytesIn, st.BytesOut = y.read()
			if !yield(st) {
				return
			}
		}
	}
}

// inherit gives the routes of t what those of old count.
func (t *table) inherit(old *table) {
	byName := make(map[string]*tally)
	if old != nil {
		for i, route := range old.routes {
			if _, twice := byName[route.Name]; twice || route.Name == "" {
				byName[route.Name] = nil
				continue
			}
			byName[route.Name] = old.tallies[i]
		}
	}
	names := make(map[string]int)
	for _, route := range t.routes {
		names[route.Name]++
	}
	t.tallies = make([]*tally, len(t.routes))
	for i, route := range t.routes {
		if t.tallies[i] = byName[route.Name]; t.tallies[i] == nil || names[route.Name] > 1 {
			t.tallies[i] = new(tally)
		}
	}
}
