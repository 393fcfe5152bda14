// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"slices"
)

// A group is one picker and the part of all picks that it gets.
type group struct {
	tier   int
	share  float64 // of all picks
	view   View
	picker Picker
	bound  bounder // nil: none
	upTo   uint64  // a draw below it, and not below that of the group before, goes here
	kept   bool    // the picker is that of the snapshot before
	spare  bool    // gets no part: it is for what the others cannot take
	core   *core
}

// group builds the i-th group of v, or keeps the present one if it is the same.
func (c *core) group(p part, v *view, i int, rand Rand) group {
	g := group{tier: p.tier, share: p.share, spare: p.share == 0, core: c}
	g.view = viewOf(p.servers, v.cursors[i], rand)
	var old *group
	if sn := v.snap.Load(); sn != nil && i < len(sn.groups) {
		old = &sn.groups[i]
	}
	switch {
	case old == nil:
		g.picker = c.picker(v, g.view)
	case old.view.same(&g.view):
		g.view, g.picker, g.kept = old.view, old.picker, true
	default:
		if n, ok := old.picker.(nexter); ok {
			g.picker = c.panics.nextPicker(n, g.view)
		}
		if g.picker == nil {
			g.picker = c.picker(v, g.view)
		}
	}
	g.bound, _ = g.picker.(bounder)
	// Shares add up to 1 but for rounding: choose makes the last one whole.
	g.upTo = uint64(math.Min(p.share, 1) * (1 << 53))
	return g
}

// picker builds a picker for v from nothing.
func (c *core) picker(v *view, servers View) Picker {
	switch {
	case v.policy != nil:
		return c.panics.makePicker(v.policy, servers)
	case c.conf.Policy != nil:
		return c.panics.makePicker(c.conf.Policy, servers)
	}
	return TwoChoices{}.Picker(servers)
}

// weightUnit is what a weight of 1 counts while servers are in slow start.
const weightUnit = 100

// viewOf returns the View of servers, with slow start applied.
func viewOf(servers []*Server, cursor *Cursor, rand Rand) View {
	v := View{Servers: servers, Weights: make([]int, len(servers)), Unit: 1, Cursor: cursor, Rand: rand}
	most, least := 0.0, 1.0
	for _, s := range servers {
		most, least = max(most, s.factor), min(least, s.factor)
	}
	for i, s := range servers {
		v.Weights[i] = s.status.weight
	}
	if least == most {
		return v
	}
	v.Unit = weightUnit
	v.Warming = make([]bool, len(servers))
	for i, s := range servers {
		v.Warming[i] = s.factor < most
		v.Weights[i] = max(1, int(float64(v.Weights[i])*weightUnit*s.factor/most))
	}
	return v
}

// same reports whether a picker for v would be the same for o.
func (v *View) same(o *View) bool {
	return v.Unit == o.Unit && v.Cursor == o.Cursor && v.Rand == o.Rand && slices.Equal(v.Weights, o.Weights) && slices.Equal(v.Warming, o.Warming) &&
		slices.Equal(v.Servers, o.Servers)
}

// choose finishes the groups of sn: the bounds of their shares, and which servers they
// hold.
func (sn *snapshot) choose(slots int, overflow bool) {
	sn.chosen = make([]*Server, slots)
	sn.spare = make([]*Server, slots)
	var sum uint64
	last := -1
	for i := range sn.groups {
		g := &sn.groups[i]
		sum += g.upTo
		g.upTo = sum
		into := sn.chosen
		if g.spare && !overflow && !sn.primary(g.tier) {
			into = sn.spare
		}
		for _, s := range g.view.Servers {
			into[s.slot] = s
		}
		if !g.spare {
			last = i
		}
		k, ok := g.picker.(keyed)
		sn.keyed = sn.keyed || ok && sn.core.panics.isKeyed(k)
	}
	for i := max(last, 0); i < len(sn.groups); i++ {
		sn.groups[i].upTo = 1 << 53
	}
}

// primary reports whether a group of that tier gets a part of the picks.
func (sn *snapshot) primary(tier int) bool {
	return slices.ContainsFunc(sn.groups, func(g group) bool { return g.tier == tier && !g.spare })
}

// holds reports whether s may be given to a request in the queue.
func (sn *snapshot) holds(s *Server, spill bool) bool {
	return int(s.slot) < len(sn.chosen) && (sn.chosen[s.slot] == s || spill && sn.spare[s.slot] == s)
}

// take picks a server and takes a slot of it, or returns the zero Lease.
func (sn *snapshot) take(key uint64, f Filter) Lease {
	if len(sn.groups) == 1 {
		return sn.groups[0].take(key, f)
	}
	l := sn.each(key, f, (*group).take)
	sn.core.panics.log()
	return l
}

// pick is take that takes no slot: whoever calls it may find the slot gone.
func (sn *snapshot) pick(key uint64, f Filter) *Server {
	return sn.each(key, f, (*group).look).s
}

// each calls try for the group that is drawn, then for the others of its tier, then
// for the other tiers if they may serve, until one returns a server.
func (sn *snapshot) each(key uint64, f Filter, try func(*group, uint64, Filter) Lease) Lease {
	if len(sn.groups) == 0 {
		return Lease{}
	}
	drawn := sn.draw(key)
	if l := try(&sn.groups[drawn], key, f); l.s != nil {
		return l
	}
	for i := range sn.groups {
		g := &sn.groups[i]
		if i == drawn || g.tier != sn.groups[drawn].tier && !sn.core.conf.Tiers.Overflow && !sn.primary(g.tier) {
			continue
		}
		if l := try(g, key, f); l.s != nil {
			return l
		}
	}
	if sn.exhausted(key, f) {
		for i := range sn.groups {
			if l := try(&sn.groups[i], key, f); l.s != nil {
				return l
			}
		}
	}
	return Lease{}
}

// exhausted reports whether f allows no server of the tiers in service, full or not:
// then the next tier is a better answer than none.
func (sn *snapshot) exhausted(key uint64, f Filter) bool {
	f.full = anyRoom
	for i := range sn.groups {
		if g := &sn.groups[i]; sn.primary(g.tier) && g.pick(key, f) != nil {
			return false
		}
	}
	return true
}

// eligible reports whether f allows any server at all, full or not.
func (sn *snapshot) eligible(key uint64, f Filter) bool {
	f.full = anyRoom
	for i := range sn.groups {
		if sn.groups[i].pick(key, f) != nil {
			return true
		}
	}
	return false
}

// takeKeyed picks the server of key and takes a slot of it. Without one, ok is false
// and l has the server to wait for, if there is any.
func (sn *snapshot) takeKeyed(key uint64, f Filter) (l Lease, ok bool) {
	for looks := 4; ; looks-- {
		s := sn.pick(key, f)
		if s == nil || s.queued.Load() > 0 {
			return Lease{s: s}, false
		}
		_, bound := sn.boundOf(s)
		if looks == 0 {
			bound = 0
		}
		// At its bound another goroutine was faster, or no server is below its bound.
		ticket, how := s.take(balanced, bound, false)
		if how == taken || bound == 0 || how == closed || !s.roomy(needSlot) {
			return Lease{s: s, ticket: ticket}, how == taken
		}
	}
}

// boundOf returns the bound of s and the group that sets it; 0 is none.
func (sn *snapshot) boundOf(s *Server) (*group, int64) {
	for i := range sn.groups {
		if g := &sn.groups[i]; g.bound != nil {
			if most := g.most(s); most > 0 {
				return g, int64(most)
			}
		}
	}
	return nil, 0
}

// within returns another server for w than s, if s is at its bound (see bounds) and
// one that is not has a slot.
func (sn *snapshot) within(s *Server, w *waiter) *Server {
	if g, most := sn.boundOf(s); g != nil && s.inflight.Load() >= most {
		f := w.filter
		f.bounded = g
		return g.ask(w.key, f)
	}
	return nil
}

// draw returns the group that this pick goes to. The same key goes to the same group as
// long as the shares are the same.
func (sn *snapshot) draw(key uint64) int {
	if len(sn.groups) == 1 || sn.groups[0].upTo == 1<<53 {
		return 0
	}
	var x uint64
	if key != 0 {
		x = mix(key)
	} else {
		x = sn.rand.Uint64()
	}
	for i := range sn.groups {
		if x>>11 < sn.groups[i].upTo {
			return i
		}
	}
	return 0
}

// pick returns a server that f allows: within the picker's bound if there is one.
func (g *group) pick(key uint64, f Filter) *Server {
	if g.bound == nil {
		return g.ask(key, f)
	}
	f.bounded = g
	s := g.ask(key, f)
	if s == nil {
		f.bounded, f.loose = nil, true
		s = g.ask(key, f)
	}
	return s
}

// look is pick, as each wants it.
func (g *group) look(key uint64, f Filter) Lease { return Lease{s: g.pick(key, f)} }

// take picks a server and takes a slot of it, or returns the zero Lease. The lease of a
// server that is not of this pool is leaseForeign, and no slot of it is taken.
func (g *group) take(key uint64, f Filter) Lease {
	looks := 16
	if f.full != anyRoom || f.a != nil {
		looks = 2
	}
	for lost := 0; lost < 16; {
		s := g.picker.Pick(key, f)
		if s == nil {
			if g.bound == nil || f.loose {
				return Lease{}
			}
			// Some server is below its bound, unless f rejects it; but while others
			// pick, one look may miss it.
			if looks--; looks == 0 {
				f.bounded, f.loose = nil, true
			}
			continue
		}
		if s.core != g.core {
			return Lease{s: s, flags: leaseForeign}
		}
		switch ticket, how := s.take(balanced, g.boundOf(s, f), false); how {
		case taken:
			return Lease{s: s, ticket: ticket}
		case full: // another goroutine was faster, or the picker does not keep its bounds
			lost++
			if g.bound != nil && !f.loose {
				f.bounded = g
			}
		case closed: // this snapshot is old
			lost++
			f.avoid(s)
		}
	}
	return Lease{}
}

// boundOf returns the bound of s for a pick with f; 0 is none.
func (g *group) boundOf(s *Server, f Filter) int64 {
	if g.bound == nil || f.loose {
		return 0
	}
	return int64(max(g.bound.Bound(s), 1))
}
