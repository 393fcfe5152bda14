// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTurns checks the law: each aligned cycle gives everybody its weight.
func TestTurns(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{1, 3, 10, 256, 2000} {
		for _, n := range []int{1, 2, 3, 50} {
			weights := make([]int, n)
			for i := range weights {
				weights[i] = 1 + rng.IntN(most)
			}
			t.Run(fmt.Sprint(n, " up to ", most), func(t *testing.T) {
				table := newTurns(weights)
				checkTurns(t, &table, weights, 3)
				classes := make(map[int][]int32)
				for i, w := range weights {
					classes[w] = append(classes[w], int32(i))
				}
				sum := uint64(0)
				for _, w := range weights {
					sum += uint64(w)
				}
				checkTurns(t, &turns{n: sum, long: newLongTurns(classes)}, weights, 2)
			})
		}
	}
}

// TestTurnsRounded has weights so different that the cycle would be too long.
func TestTurnsRounded(t *testing.T) {
	turns := newTurns([]int{MaxWeight * weightUnit, 1})
	require.LessOrEqual(t, turns.n, uint64(maxRounds+1))
	ones := 0
	for k := range turns.n {
		ones += turns.at(k)
	}
	require.Equal(t, 1, ones)
}

// TestTurnsExact has the weights farthest apart that servers may have: none is rounded.
func TestTurnsExact(t *testing.T) {
	for _, weights := range [][]int{{MaxWeight, 1}, {MaxWeight, MaxWeight - 1, 1, 2, 3}} {
		turns := newTurns(weights)
		counts := make([]int, len(weights))
		for k := range turns.n {
			counts[turns.at(k)]++
		}
		require.Equal(t, weights, counts)
	}
}

// checkTurns looks at two cycles. The distance of two turns of one server may be up to
// slack times what is even, and one more.
func checkTurns(t *testing.T, turns *turns, weights []int, slack float64) {
	t.Helper()
	counts := make([]int, len(weights))
	last := make([]int, len(weights))
	for i := range last {
		last[i] = -1
	}
	sum := int(turns.n)
	unit := 0
	for _, w := range weights {
		unit += w
	}
	unit /= sum
	for k := range 2 * sum {
		i := turns.at(uint64(k))
		counts[i]++
		if last[i] >= 0 {
			even := float64(sum) / float64(weights[i]/unit)
			if gap := float64(k - last[i]); gap > slack*even+float64(len(weights)) {
				t.Fatalf("server %d of weight %d waits for %v turns; %v would be even", i, weights[i], gap, even)
			}
		}
		last[i] = k
		if k == sum-1 || k == 2*sum-1 {
			for i, w := range weights {
				require.Equal(t, w/unit*(k/sum+1), counts[i], "server %d after %d turns", i, k+1)
			}
		}
	}
}

// TestLottery checks the odds exactly, by counting what the cells stand for.
func TestLottery(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {1, 2, 3}, {65535, 1, 1}, {10, 7, 3, 10, 7, 3}} {
		l := newLottery(weights)
		odds := make([]float64, len(weights))
		sum := 0
		for i, w := range weights {
			sum += w
			if l.cells == nil {
				odds[i] = 1 / float64(len(weights))
				continue
			}
			keep := float64(l.cells[i].keep) / (1 << 32)
			odds[i] += keep / float64(len(weights))
			odds[l.cells[i].alias] += (1 - keep) / float64(len(weights))
		}
		for i, w := range weights {
			require.InDelta(t, float64(w)/float64(sum), odds[i], 1e-9, "%v", weights)
		}
	}
}
