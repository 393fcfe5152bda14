// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Of replies that grow at the same time, as many become whole as there is room for, and
// the others take no more of it than their beginning.
func TestHoldingGrowsWholeReplies(t *testing.T) {
	const most = 1 << 20
	for _, known := range []bool{true, false} {
		h := &holding{max: most, all: 8*most + 64*smallReply}
		replies := make([]held, 64)
		streams := make([]bool, len(replies))
		length := int64(-1)
		if known {
			length = most
		}
		piece := make([]byte, 16<<10)
		for range most / len(piece) {
			for i := range replies {
				if streams[i] {
					continue
				}
				if replies[i].of = h; !replies[i].add(piece, length) {
					replies[i].grown()
					streams[i] = true
				}
			}
		}
		whole := 0
		for i := range replies {
			if !streams[i] {
				require.Len(t, replies[i].body, most)
				whole++
			} else {
				require.LessOrEqual(t, replies[i].room, int64(smallReply))
			}
		}
		require.GreaterOrEqual(t, whole, 8, known)
		for i := range replies {
			replies[i].give()
		}
		require.Zero(t, h.held.Load())
	}
}

// What is taken is what the replies have, at any time, and no more than there is.
func TestHoldingCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	piece := make([]byte, 40_000)
	for range 20 {
		h := &holding{max: 1 + r.IntN(300_000), all: int64(r.IntN(1_000_000))}
		replies := make([]held, 20)
		lengths := make([]int64, len(replies))
		for i := range lengths {
			replies[i].of, lengths[i] = h, int64(r.IntN(h.max+1))-1
		}
		for range 300 {
			i := r.IntN(len(replies))
			switch a := &replies[i]; {
			case a.of == nil:
				a.of = h
			case r.IntN(20) == 0:
				a.grown()
				require.EqualValues(t, cap(a.body), a.room)
				a.give()
			default:
				n := len(a.body)
				if more := r.IntN(len(piece)); a.add(piece[:more], lengths[i]) {
					n += more
				}
				require.Len(t, a.body, n)
			}
			sum, good := int64(0), true
			for j := range replies {
				a := &replies[j]
				sum += a.room
				good = good && int64(cap(a.body)) <= a.room && len(a.body) <= h.max
			}
			if !good || sum != h.held.Load() || sum > h.all && h.all > 0 {
				t.Fatalf("%d taken of %d, by replies of up to %d: %d", h.held.Load(), h.all, h.max, sum)
			}
		}
	}
}
