// SPDX-License-Identifier: Apache-2.0

package balance

import "math/bits"

// A lottery draws indexes by weight, in the same time for any number of them. (Walker's
// alias method, as in Vose: A Linear Algorithm for Generating Random Numbers with a
// Given Distribution, 1991.)
type lottery struct {
	n     uint64
	cells []cell // nil: all weights are equal
}

// A cell is drawn with the same probability as any other. It stands for its own index
// if the rest of the random number is below keep, and for alias otherwise.
type cell struct {
	keep  uint32
	alias int32
}

// newLottery returns the lottery for weights, which must be greater than 0.
func newLottery(weights []int) lottery {
	l := lottery{n: uint64(len(weights))}
	var sum uint64
	equal := true
	for _, w := range weights {
		sum += uint64(w)
		equal = equal && w == weights[0]
	}
	if equal {
		return l
	}
	// In units of which each cell holds sum.
	left := make([]uint64, len(weights))
	var small, large []int32
	sort := func(i int32) {
		if left[i] < sum {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for i, w := range weights {
		left[i] = uint64(w) * l.n
		sort(int32(i))
	}
	l.cells = make([]cell, len(weights))
	for len(small) > 0 && len(large) > 0 {
		s, g := small[len(small)-1], large[len(large)-1]
		small, large = small[:len(small)-1], large[:len(large)-1]
		keep, _ := bits.Div64(left[s]>>32, left[s]<<32, sum)
		l.cells[s] = cell{keep: uint32(keep), alias: g}
		left[g] -= sum - left[s]
		sort(g)
	}
	for _, i := range append(small, large...) { // full cells
		l.cells[i] = cell{keep: 1<<32 - 1, alias: i}
	}
	return l
}

// draw turns a random number into an index.
func (l *lottery) draw(x uint64) int {
	i, rest := bits.Mul64(x, l.n)
	if l.cells == nil {
		return int(i)
	}
	c := l.cells[i]
	if uint32(rest>>32) < c.keep {
		return int(i)
	}
	return int(c.alias)
}
