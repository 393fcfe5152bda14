// SPDX-License-Identifier: Apache-2.0

package balance

import "slices"

// TwoChoices draws N different servers at random, by weight, and picks the one with the
// least work taken on, relative to its weight. It is nearly as good as LeastConn at the
// cost of Random, and does not send all balancers of a fleet to the same idle server at
// once. It is the default.
//
// (Mitzenmacher: The Power of Two Choices in Randomized Load Balancing, 2001; HAProxy,
// random(2).)
type TwoChoices struct {
	N int // servers drawn; 0 means 2, at most 16; 1 is [Random]
}

const maxChoices = 16

// Picker implements [Policy].
func (c TwoChoices) Picker(v View) Picker {
	n := c.N
	if n <= 0 {
		n = 2
	}
	return &choices{view: v, draw: newLottery(v.Weights), n: min(n, len(v.Servers), maxChoices)}
}

type choices struct {
	view View
	draw lottery
	n    int
}

func (p *choices) Pick(_ uint64, f Filter) *Server {
	v := &p.view
	var drawn [maxChoices]int32
	var best *Server
	var least rank
	n := 0
	// What was drawn before, or is not allowed, is drawn again, a few times: if that
	// does not help few servers are left, and a scan finds them.
	for range 2*p.n + 2 {
		i := p.draw.draw(v.Rand.Uint64())
		s := v.Servers[i]
		if slices.Contains(drawn[:n], int32(i)) || !f.Allows(s) {
			continue
		}
		if r := (rank{uint64(s.load()) + 1, uint64(v.Weights[i])}); best == nil || r.less(least) {
			best, least = s, r
		}
		drawn[n] = int32(i)
		if n++; n == p.n {
			break
		}
	}
	if best != nil {
		return best
	}
	return v.firstFrom(v.Rand.IntN(len(v.Servers)), f)
}

// firstFrom returns the first server from index i on that f allows.
func (v *View) firstFrom(i int, f Filter) *Server {
	for range v.Servers {
		if s := v.Servers[i]; f.Allows(s) {
			return s
		}
		if i++; i == len(v.Servers) {
			i = 0
		}
	}
	return nil
}
