// SPDX-License-Identifier: Apache-2.0

package balance

import "slices"

// TwoChoices draws N different servers at random, by weight, and picks the one with the
// least work taken on, relative to its weight. It is nearly as good as LeastConn at the
// cost of Random, and does not send all balancers of a fleet to the same idle server at
// once. It is the default.
//
// An idle server that was drawn first is picked, so that with little to do each has its
// share by weight: of servers with weights 90 and 10, the second gets a tenth. For the
// same reason, of servers with different weights only the first two drawn are compared,
// and the better one with the rest that have its weight: a light server is idle most of
// the time, and among many would be found more often than is its share. [LeastConn]
// compares all.
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
	return &choices{view: v, draw: newLottery(v.Weights), scales: newScales(&v), n: min(n, len(v.Servers), maxChoices)}
}

type choices struct {
	view   View
	draw   lottery
	scales scales
	n      int
}

func (p *choices) Pick(_ uint64, f Filter) *Server {
	v := &p.view
	var drawn [maxChoices]int32
	best, least, n := 0, int64(0), 0
	// What was drawn before, or is not allowed, is drawn again, a few times: if that
	// does not help few servers are left, and a scan finds them.
	for range 2*p.n + 2 {
		x := v.Rand.Uint64()
		i := p.draw.draw(x)
		if n == 1 && len(v.Servers) == 2 {
			i = 1 - best // the heavier one might be drawn again and again
		}
		s := v.Servers[i]
		if slices.Contains(drawn[:n], int32(i)) || !f.Allows(s) {
			continue
		}
		if load := s.load(); n == 0 || (n == 1 || p.scales.same(i, best)) && p.scales.prefer(i, best, float64(load), float64(least), 1, fraction(x)) {
			best, least = i, load
		}
		drawn[n] = int32(i)
		if n++; n == p.n || least == 0 {
			break
		}
	}
	if n > 0 {
		return v.Servers[best]
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
