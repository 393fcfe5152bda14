// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"slices"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
)

// A Share is the part of one gateway in a fleet of gateways that do the same work:
// how many there are, and which one this is. The gateways are the members of a pool,
// which is followed like any other:
//
//	gateways := &balance.Pool{Name: "gateways"}
//	go gateways.Follow(ctx, source)
//	share := &balance.Share{Of: gateways, Self: "gw-1"}
//
// From these two numbers each gateway works out by itself what is its own, so that
// the gateways need not talk to each other: [Portion] is its part of a large pool,
// Queue.Share its part of a queue's bounds, and ratelimit.Shared.Gateways its part of
// a limit while the store is away. While the gateways are not of one mind about the
// fleet, as after a change, the parts overlap or leave a gap for as long as that takes.
//
// Members count whatever their state, drained and down ones too, as all gateways must
// count alike. A gateway counts itself, even if the pool has not heard of it yet; with
// an empty pool it is alone. The fields must not change after first use. All methods
// may be called at once.
type Share struct {
	Of   *Pool  // the gateways
	Self string // the name of this one among them

	last atomic.Pointer[fleet]
}

// A fleet is what a Share makes of a set of members. It does not change.
type fleet struct {
	of    *set
	names []string // in order, Self among them
	self  int
}

// Check reports what is wrong with the fields, as [penstock.ConfigError]s. The [Portion]
// that uses s calls it.
func (s *Share) Check() error {
	var m penstock.Mistakes
	m.Need("Share.Of", s.Of, "must be the pool of the gateways")
	if s.Of != nil && s.Of.Queue.Share == nil { // which might lead back to here
		m.In("Share.Of", s.Of)
	}
	m.If(s.Self == "", "Share.Self", s.Self, "must be the name of this gateway in the pool")
	return m.Err()
}

// fleet returns how things stand.
func (s *Share) fleet() *fleet {
	s.Of.init()
	of := s.Of.view.set.Load()
	if f := s.last.Load(); f != nil && f.of == of {
		return f
	}
	f := &fleet{of: of, names: make([]string, 0, len(of.members)+1)}
	for _, m := range of.members {
		f.names = append(f.names, m.Name())
	}
	if of.byName[s.Self] == nil {
		f.names = append(f.names, s.Self)
	}
	slices.Sort(f.names)
	f.self, _ = slices.BinarySearch(f.names, s.Self)
	s.last.Store(f)
	return f
}

// Count returns how many gateways there are, this one included.
func (s *Share) Count() int { return len(s.fleet().names) }

// Index returns the place of this gateway in the order of names: 0 up to Count()-1.
func (s *Share) Index() int { return s.fleet().self }

// Part returns this gateway's part of n. The parts of all gateways are n together, and
// no two differ by more than 1. But a part of 1 or more never becomes 0, which means a
// default or no limit elsewhere: if there are more gateways than n, each has 1.
func (s *Share) Part(n int) int {
	f := s.fleet()
	return partOf(n, f.self, len(f.names))
}

// partOf is what number i of count gets of n. What is 0 or negative stays as it is.
func partOf(n, i, count int) int {
	if n <= 0 {
		return n
	}
	part := n / count
	if i < n%count {
		part++
	}
	return max(1, part)
}
