// SPDX-License-Identifier: Apache-2.0

package balance

import "sort"

// turns is an endless sequence of indexes, in which each occurs as its weight says.
//
//	weights    sequence
//	1 1 1      0 1 2
//	3 1        0 0 1 0
//	5 1 1      0 1 0 0 0 2 0
//
// Any element can be asked for without the ones before, so a counter is all the state
// that many goroutines need to share.
type turns struct {
	n     uint64  // length of the cycle
	table []int32 // the cycle; nil if all weights are equal, or if it would be too long
	long  *longTurns
}

// maxRounds bounds the memory of long cycles: 8 bytes a round. It is more than
// MaxWeight, so that weights are rounded only in units of slow start.
const maxRounds = 1 << 18

// newTurns returns the turns for weights, which must be greater than 0.
func newTurns(weights []int) turns {
	unit, sum, heaviest := 0, uint64(0), 0
	for _, w := range weights {
		unit = gcd(w, unit)
		heaviest = max(heaviest, w)
	}
	if heaviest/unit > maxRounds {
		rounded := make([]int, len(weights))
		for i, w := range weights {
			rounded[i] = max(1, int(int64(w)*maxRounds/int64(heaviest)))
		}
		return newTurns(rounded)
	}
	classes := make(map[int][]int32)
	for i, w := range weights {
		sum += uint64(w / unit)
		classes[w/unit] = append(classes[w/unit], int32(i))
	}
	t := turns{n: sum}
	switch {
	case len(classes) <= 1:
	case sum <= uint64(max(1<<16, 8*len(weights))):
		t.table = spread(weights, unit, int(sum), classes)
	default:
		t.long = newLongTurns(classes)
	}
	return t
}

// at returns element k.
func (t *turns) at(k uint64) int {
	k %= t.n
	switch {
	case t.table != nil:
		return int(t.table[k])
	case t.long != nil:
		return t.long.at(k)
	}
	return int(k)
}

// spread lays out a cycle of n turns. The j-th of m servers of weight w has its k-th
// turn at the ideal time (k + (j+1/2)/m) * n/w, so that its turns are evenly apart, and
// those of servers with the same weight are too. A turn takes the place of its rank
// among all ideal times.
func spread(weights []int, unit, n int, classes map[int][]int32) []int32 {
	rank := make([]int, len(weights))
	for _, class := range classes {
		for j, i := range class {
			rank[i] = j
		}
	}
	// Sort by counting: the times of a cycle fall into n slots, one turn each on
	// average.
	slot := func(i, k int) int {
		w, m := weights[i]/unit, len(classes[weights[i]/unit])
		return int((uint64(k)*2*uint64(m) + uint64(2*rank[i]+1)) * uint64(n) / (2 * uint64(m) * uint64(w)))
	}
	starts := make([]int32, n+1)
	for i := range weights {
		for k := range weights[i] / unit {
			starts[slot(i, k)+1]++
		}
	}
	for i := 1; i <= n; i++ {
		starts[i] += starts[i-1]
	}
	table := make([]int32, n)
	for i := range weights {
		for k := range weights[i] / unit {
			s := slot(i, k)
			table[starts[s]] = int32(i)
			starts[s]++
		}
	}
	return table
}

// longTurns is for cycles that are too long for a table. The cycle is made of rounds,
// as many as the largest weight; in round g every server has a turn whose weight w
// makes floor(g*w/rounds) step up. (Static stride scheduling as in gRPC's
// weighted_round_robin, with random access.)
type longTurns struct {
	rounds  int
	starts  []uint64 // by round: how many turns came before
	classes []turnClass
}

type turnClass struct {
	weight  int
	members []int32
}

func newLongTurns(classes map[int][]int32) *longTurns {
	t := &longTurns{}
	for w, members := range classes {
		t.rounds = max(t.rounds, w)
		t.classes = append(t.classes, turnClass{w, members})
	}
	sort.Slice(t.classes, func(i, j int) bool { return t.classes[i].weight > t.classes[j].weight })
	t.starts = make([]uint64, t.rounds+1)
	for g := range t.rounds {
		n := t.starts[g]
		for i := range t.classes {
			if t.classes[i].hasTurn(g, t.rounds) {
				n += uint64(len(t.classes[i].members))
			}
		}
		t.starts[g+1] = n
	}
	return t
}

// hasTurn reports whether servers of c have a turn in round g.
func (c *turnClass) hasTurn(g, rounds int) bool {
	g64, w, n := int64(g), int64(c.weight), int64(rounds)
	return (g64+1)*w/n > g64*w/n
}

func (t *longTurns) at(k uint64) int {
	g := sort.Search(t.rounds, func(g int) bool { return t.starts[g+1] > k })
	k -= t.starts[g]
	for i := range t.classes {
		c := &t.classes[i]
		if !c.hasTurn(g, t.rounds) {
			continue
		}
		if k < uint64(len(c.members)) {
			return int(c.members[k])
		}
		k -= uint64(len(c.members))
	}
	panic("balance: turns do not add up")
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
