// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"sync/atomic"
)

// bounds keeps the load of each server of a hashing policy within factor of its fair
// part of the load of all of them:
//
//	slots    = ceil((leases + 1) * factor)
//	slots(i) = max(1, ceil(slots * weight(i) / sum of weights))
//
// A server may take one more lease if it has less than slots(i). Since factor is
// greater than 1, there is always a server below its bound, but it may be at its
// limit, see [Ring]. (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with
// Bounded Loads, arXiv 1608.01350; formula as in Envoy and HAProxy.)
type bounds struct {
	factor  float64
	sum     float64  // of weights
	members []member // by slot
	_       [cacheLine]byte
	total   atomic.Int64
	_       [cacheLine - 8]byte
}

type member struct {
	server *Server // nil: not of this picker
	weight float64
	known  atomic.Int64 // leases of it that total holds
}

func newBounds(v View, factor float64) *bounds {
	b := &bounds{factor: factor}
	for i, s := range v.Servers {
		if int(s.slot) >= len(b.members) {
			grown := make([]member, int(s.slot)*2+1)
			for j := range b.members {
				grown[j].server, grown[j].weight = b.members[j].server, b.members[j].weight
			}
			b.members = grown
		}
		b.members[s.slot].server, b.members[s.slot].weight = s, float64(v.Weights[i])
		b.sum += float64(v.Weights[i])
	}
	for _, s := range v.Servers {
		b.Changed(s)
	}
	return b
}

// member returns that of s, or nil.
func (b *bounds) member(s *Server) *member {
	if int(s.slot) >= len(b.members) || b.members[s.slot].server != s {
		return nil
	}
	return &b.members[s.slot]
}

// Changed updates the total. If several goroutines do so at once for one server, the
// last one sees the latest count; until then the total may be off by their changes.
func (b *bounds) Changed(s *Server) {
	member := b.member(s)
	if member == nil {
		return
	}
	for {
		known := member.known.Load()
		n := s.inflight.Load()
		if n == known {
			return
		}
		if member.known.CompareAndSwap(known, n) {
			b.total.Add(n - known)
		}
	}
}

// own marks a picker of this package.
func (*bounds) own() {}

// Bound returns slots(i).
func (b *bounds) Bound(s *Server) int {
	member := b.member(s)
	if member == nil {
		return 0
	}
	slots := math.Ceil(float64(max(b.total.Load(), 0)+1) * b.factor)
	return max(1, int(min(math.Ceil(slots*member.weight/b.sum), math.MaxInt32))) // factor may be without bound
}

// within reports whether s may take one more lease.
func (b *bounds) within(s *Server) bool { return s.inflight.Load() < int64(b.Bound(s)) }

// boundedPicker adds bounds to a hashing picker.
type boundedPicker struct {
	hashPicker
	*bounds
}

// hashPicker is what the hashing policies build.
type hashPicker interface {
	Picker
	Keyed() bool
}

// hashed is the common part of all hashing pickers.
type hashed struct {
	view   View
	plain  roundRobin // for requests without a key
	bounds *bounds    // nil: none
}

func newHashed(v View, factor float64) hashed {
	h := hashed{view: v, plain: roundRobin{view: v, turns: newTurns(v.Weights)}}
	if factor > 0 {
		h.bounds = newBounds(v, max(factor, 1.01))
	}
	return h
}

// Keyed says that the pick follows from the key.
func (h *hashed) Keyed() bool { return true }

// allows reports whether f and the bounds allow s.
func (h *hashed) allows(s *Server, f Filter) bool {
	return f.Allows(s) && (h.bounds == nil || f.loose || h.bounds.within(s))
}

// any returns a server for a request without a key, or when the order of fallback has
// come to its end: the first from index i on that is allowed.
func (h *hashed) any(i uint64, f Filter) *Server {
	n := uint64(len(h.view.Servers))
	for k := range n {
		if s := h.view.Servers[(i%n+k)%n]; h.allows(s, f) {
			return s
		}
	}
	return nil
}

// keyless picks for a request without a key: round robin.
func (h *hashed) keyless(f Filter) *Server {
	if h.bounds == nil {
		return h.plain.Pick(0, f)
	}
	// A server at its bound loses its turn, as a full one does in [RoundRobin].
	var i int
	for range 4 {
		i = h.plain.turns.at(h.view.Cursor.Next())
		if s := h.view.Servers[i]; h.allows(s, f) {
			return s
		}
	}
	return h.any(uint64(i), f)
}

// done adds the bounds to p, if there are any.
func (h *hashed) finish(p hashPicker) Picker {
	if h.bounds == nil {
		return p
	}
	return &boundedPicker{p, h.bounds}
}
