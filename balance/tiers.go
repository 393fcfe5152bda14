// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"math"
	"slices"
)

// Tiers says when the servers of [Endpoint.Tier] 1 and above serve.
type Tiers struct {
	// Overprovision is how much more than its share a tier can carry: as long as the
	// usable part of it, by weight, times Overprovision is at least 1, it serves
	// everything; below, the rest goes to the next tier. Envoy uses 1.4. 0 means that
	// the next tier serves only when this one has no usable server.
	Overprovision float64
	// Overflow also uses the next tier when all servers of this one are at their
	// limits, instead of letting requests wait.
	Overflow bool
}

// A part is a set of servers that get a share of the picks.
type part struct {
	tier    int // ordinal of the tier, not its number
	servers []*Server
	share   float64 // of all picks; 0: a spare
}

// A tier is what is known of one, for the division of load.
type tier struct {
	number         int
	members        []*Server
	weight, usable float64
	panic          bool
}

// health returns the part of the tier's weight that is usable.
func (t *tier) health() float64 {
	if t.weight == 0 {
		return 0
	}
	return t.usable / t.weight
}

// parts divides the picks over tiers and zones. It also reports whether a tier panics.
func (c *core) parts(members []*Server) (parts []part, panicky bool) {
	tiers := tiersOf(members)
	loads := divide(tiers, c.conf.Tiers.Overprovision, c.conf.Panic)
	for i := range tiers {
		t := &tiers[i]
		servers := t.members
		if !t.panic || loads[i] == 0 {
			servers = slices.DeleteFunc(servers, func(s *Server) bool { return !s.published.usable() })
		} else {
			panicky = true
			servers = slices.DeleteFunc(servers, func(s *Server) bool { return s.status.operator.Admin != Ready || s.status.weight == 0 })
			for _, s := range servers {
				c.forced[s] = true
			}
		}
		if len(servers) > 0 {
			parts = append(parts, c.conf.Locality.split(i, servers, loads[i])...)
		}
	}
	return parts, panicky
}

// tiersOf sorts members into tiers, in ascending order.
func tiersOf(members []*Server) []tier {
	var tiers []tier
	for _, s := range members {
		number := s.ep.Load().Tier
		i, found := slices.BinarySearchFunc(tiers, number, func(t tier, n int) int { return cmp.Compare(t.number, n) })
		if !found {
			tiers = slices.Insert(tiers, i, tier{number: number})
		}
		t := &tiers[i]
		t.members = append(t.members, s)
		t.weight += float64(s.status.weight)
		if s.published.usable() {
			t.usable += float64(s.status.weight)
		}
	}
	return tiers
}

// divide returns the share of the load of each tier, and marks those which panic.
//
//	health(i) = min(1, over * usable(i) / weight(i))
//	norm      = min(1, sum of health)
//	load(i)   = min(1 - sum of loads before, health(i) / norm)
//
// (Envoy, "Priority levels", "Panic threshold".)
func divide(tiers []tier, over, threshold float64) []float64 {
	loads := make([]float64, len(tiers))
	var norm float64
	for i := range tiers {
		norm += math.Min(1, max(over, 1)*tiers[i].health())
	}
	for i := range tiers {
		tiers[i].panic = norm < 1 && tiers[i].health() < threshold
	}
	if norm == 0 {
		if len(loads) > 0 {
			loads[0] = 1 // only panic can serve it
		}
		return loads
	}
	left := 1.0
	for i := range tiers {
		h := tiers[i].health()
		if over > 0 {
			h = math.Min(1, over*h) / math.Min(1, norm)
		} else if h > 0 {
			h = 1
		}
		loads[i] = math.Min(left, h)
		left -= loads[i]
		if left < 1e-9 { // rounding
			left = 0
		}
	}
	return loads
}
