// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
)

// Maglev looks the key up in a table in which every server has nearly the same number
// of entries, by weight. It spreads keys more evenly than [Ring] and picks faster, but
// a few more keys move when a server is added or removed. Balancers with the same
// servers agree, whatever the order of Set.
//
// If the server of a key is not allowed, the key is hashed again for another entry, and
// again. A request without a key is served round robin. The table is built when the
// servers change, in Set or Report, while picks use the old one.
//
// (Eisenbud et al.: Maglev, A Fast and Reliable Software Network Load Balancer, NSDI
// 2016, section 3.4; weights as in Envoy.)
type Maglev struct {
	Size  int     // entries of the table, at most 5000011, made prime; 0 means 65537 up to 1000 servers, 655373 up to 10000, 5000011 above
	Bound float64 // as in [Ring]
}

// maglevMax is the largest table.
const maglevMax = 5000011

// Picker implements [Policy].
func (m Maglev) Picker(v View) Picker {
	size := m.Size
	if size <= 0 {
		switch n := len(v.Servers); {
		case n <= 1000:
			size = 65537
		case n <= 10000:
			size = 655373
		default:
			size = maglevMax
		}
	}
	p := &maglev{hashed: newHashed(v, m.Bound)}
	size = nextPrime(min(max(size, len(v.Servers)), maglevMax))
	if len(v.Servers) < 1<<16 {
		p.table = maglevTable[uint16](v, size)
	} else {
		p.wide = maglevTable[uint32](v, size)
	}
	return p.finish(p)
}

// maglev holds a table of indexes of the view, as narrow as they fit: a pick looks at
// one entry of it, which is in a cache or not.
type maglev struct {
	hashed
	table []uint16
	wide  []uint32 // instead of table
}

func (p *maglev) Pick(key uint64, f Filter) *Server {
	if key == 0 {
		return p.keyless(f)
	}
	key = mix(key)
	for range 16 {
		if s := p.view.Servers[p.at(key)]; p.allows(s, f) {
			return s
		}
		key = mix(key + 0x9e3779b97f4a7c15)
	}
	return p.any(key, f)
}

// at returns the index of the server of a key whose bits are well mixed.
func (p *maglev) at(key uint64) int {
	if p.table != nil {
		i, _ := bits.Mul64(key, uint64(len(p.table)))
		return int(p.table[i])
	}
	i, _ := bits.Mul64(key, uint64(len(p.wide)))
	return int(p.wide[i])
}

// maglevTable fills a table of a prime size. Each server has a permutation of the
// entries, and takes the next free one of it when it is its turn. The heaviest have a
// turn in each round.
func maglevTable[T uint16 | uint32](v View, size int) []T {
	turns := make([]maglevTurn, len(v.Servers))
	var heaviest uint64
	for i, s := range v.Servers {
		h := Hash(s.Name())
		turns[i] = maglevTurn{server: i, next: h % uint64(size), skip: mix(h+1)%uint64(size-1) + 1, weight: uint64(v.Weights[i])}
		heaviest = max(heaviest, turns[i].weight)
	}
	slices.SortFunc(turns, func(a, b maglevTurn) int { // so that the order of Set does not count
		return cmp.Or(cmp.Compare(a.next, b.next), strings.Compare(v.Servers[a.server].Name(), v.Servers[b.server].Name()))
	})
	free := ^T(0) // no index: those are below it
	table := make([]T, size)
	for i := range table {
		table[i] = free
	}
	for left, round := size, uint64(1); ; round++ {
		for i := range turns {
			t := &turns[i]
			if round*t.weight < t.target {
				continue
			}
			t.target += heaviest
			for table[t.next] != free {
				t.step(uint64(size))
			}
			table[t.next] = T(t.server)
			t.step(uint64(size))
			if left--; left == 0 {
				return table
			}
		}
	}
}

// maglevTurn is where one server is in its permutation: entry n of it is (offset +
// n*skip) mod size.
type maglevTurn struct {
	server         int
	next, skip     uint64
	weight, target uint64
}

// step moves on to the next entry.
func (t *maglevTurn) step(size uint64) {
	if t.next += t.skip; t.next >= size {
		t.next -= size
	}
}

// nextPrime returns the smallest prime that is at least n.
func nextPrime(n int) int {
	for n = max(n, 3); ; n++ {
		prime := true
		for d := 2; d*d <= n && prime; d++ {
			prime = n%d != 0
		}
		if prime {
			return n
		}
	}
}
