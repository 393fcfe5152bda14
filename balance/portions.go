// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"slices"
	"strings"
)

// portionsOf gives each gateway size servers or more, so that no two servers have
// numbers of gateways that differ by more than 1. The result has the indexes of its servers,
// in order, for each gateway. It depends on the names alone, the gateways' in order, and
// changes little with them.
//
// Each gateway and each server have a score with each other, made of both names. Pairs
// are made in the order of scores, as long as the gateway has room and the server needs
// one; a pair that both like is made whatever others are there, and so it stays when
// others come and go. The few that are left over at the end trade with paired ones.
func portionsOf(gateways, servers []string, size int) [][]int32 {
	if len(servers) == 0 {
		return make([][]int32, len(gateways))
	}
	order := make([]int32, len(servers)) // by name, so that the order of a source does not count
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return strings.Compare(servers[a], servers[b]) })
	sorted := make([]string, len(servers))
	for i, at := range order {
		sorted[i] = servers[at]
	}
	m := newMatching(gateways, sorted, size)
	for _, most := range []int{m.fewest, m.fewest + 1} { // gateways of a server
		m.most = most
		m.pair(m.pairs(m.likely))
		m.pair(m.pairs(m.open))
		m.trade()
	}
	for _, own := range m.has {
		for i, at := range own {
			own[i] = order[at]
		}
		slices.Sort(own)
	}
	return m.has
}

// A matching is the work of portionsOf.
type matching struct {
	gateways, servers []uint64 // hashes
	size              int      // servers of a gateway
	fewest, most      int      // gateways of a server
	limit             uint64   // of the score of a likely pair

	has   [][]int32 // servers of each gateway
	holds [][]int32 // gateways of each server
}

func newMatching(gateways, servers []string, size int) *matching {
	g, s := len(gateways), len(servers)
	size = min(max(size, (s+g-1)/g), s)
	m := &matching{size: size, fewest: g * size / s, has: make([][]int32, g), holds: make([][]int32, s)}
	m.most = m.fewest
	for _, name := range gateways {
		m.gateways = append(m.gateways, mix(Hash(name)))
	}
	for _, name := range servers {
		m.servers = append(m.servers, Hash(name))
	}
	// Four times as many pairs as are made: nearly all are among them, and the others
	// need not be sorted.
	m.limit = ^uint64(0)
	if 4*size < s {
		m.limit = m.limit / uint64(s) * uint64(4*size)
	}
	return m
}

func (m *matching) score(g, s int32) uint64 { return mix(m.gateways[g] ^ m.servers[s]) }

func (m *matching) likely(g, s int32) bool { return m.score(g, s) <= m.limit }

// open reports whether both sides of a pair have room.
func (m *matching) open(g, s int32) bool {
	return len(m.has[g]) < m.size && len(m.holds[s]) < m.most
}

type scored struct {
	score uint64
	g, s  int32
}

// pairs returns those that may be made yet and pass, in the order of scores.
func (m *matching) pairs(pass func(g, s int32) bool) (pairs []scored) {
	for g := range int32(len(m.gateways)) {
		if len(m.has[g]) >= m.size {
			continue
		}
		for s := range int32(len(m.servers)) {
			if len(m.holds[s]) < m.most && pass(g, s) {
				pairs = append(pairs, scored{m.score(g, s), g, s})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b scored) int { return cmp.Compare(a.score, b.score) })
	return pairs
}

// pair makes pairs in order.
func (m *matching) pair(pairs []scored) {
	for _, p := range pairs {
		if m.open(p.g, p.s) && !slices.Contains(m.holds[p.s], p.g) {
			m.make(p.g, p.s)
		}
	}
}

func (m *matching) make(g, s int32) {
	m.has[g], m.holds[s] = append(m.has[g], s), append(m.holds[s], g)
}

func (m *matching) part(g, s int32) {
	m.has[g] = slices.DeleteFunc(m.has[g], func(x int32) bool { return x == s })
	m.holds[s] = slices.DeleteFunc(m.holds[s], func(x int32) bool { return x == g })
}

// trade finds gateways for servers that have fewer than m.most, while gateways with
// room are left: as those have these servers already, another gateway takes the server,
// and gives one of its own to the gateway with room.
func (m *matching) trade() {
	for h := range int32(len(m.gateways)) {
		for s := int32(0); s < int32(len(m.servers)) && len(m.has[h]) < m.size; s++ {
			for len(m.holds[s]) < m.most && len(m.has[h]) < m.size && m.tradeFor(h, s) {
			}
		}
	}
}

// tradeFor gives server s one more gateway and h one more server.
func (m *matching) tradeFor(h, s int32) bool {
	if !slices.Contains(m.has[h], s) {
		m.make(h, s)
		return true
	}
	for g := range int32(len(m.gateways)) {
		if g == h || slices.Contains(m.has[g], s) {
			continue
		}
		for _, t := range m.has[g] {
			if !slices.Contains(m.has[h], t) {
				m.part(g, t)
				m.make(h, t)
				m.make(g, s)
				return true
			}
		}
	}
	return false
}
