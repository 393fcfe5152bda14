// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestSharesWhereALeaseIsMuch has a server whose part of the work in flight is less than one
// lease, or a little more. Draws that allow for that (see scales) keep its part. Rules that
// compare whole leases cannot: it has none or one too many, and the comments say by how much.
func TestSharesWhereALeaseIsMuch(t *testing.T) {
	for _, test := range []struct {
		policy      balance.Policy
		least, most float64 // of its part
	}{
		{balance.RoundRobin{}, 0.99, 1.01},
		{balance.Random{}, 0.85, 1.15},
		{balance.TwoChoices{}, 0.85, 1.15},
		{balance.TwoChoices{N: 16}, 0.85, 1.15},
		{balance.PeakEWMA{}, 0.85, 1.15},
		{balance.Ring{}, 0.7, 1.3},
		{balance.Maglev{}, 0.85, 1.15},
		{balance.Rendezvous{}, 0.85, 1.15},
		{balance.LeastConn{}, 0.6, 1.45},
		{balance.Scored{}, 0.5, 1.45},
		{balance.Rendezvous{Bound: 1.25}, 0.45, 1.15},
		{balance.Maglev{Bound: 1.25}, 0.45, 1.15},
		{balance.Ring{Bound: 1.25}, 0.45, 1.3},
	} {
		t.Run(fmt.Sprintf("%T%v", test.policy, test.policy), func(t *testing.T) {
			for _, inFlight := range []int{1, 2, 10} {
				for _, leases := range []float64{0.3, 0.5, 0.7, 0.9, 1, 1.3, 1.9} {
					part := leases / float64(inFlight)
					if part > 0.5 {
						continue
					}
					got := lightPart(t, test.policy, inFlight, int(math.Round(part*100))) / part
					require.GreaterOrEqual(t, got, test.least, "%v of %d in flight", leases, inFlight)
					require.LessOrEqual(t, got, test.most, "%v of %d in flight", leases, inFlight)
				}
			}
		})
	}
}

// lightPart returns what part of the picks a server of that weight, of 100, gets while so
// much is in flight and ends in no order.
func lightPart(t *testing.T, policy balance.Policy, inFlight, weight int) float64 {
	t.Helper()
	p := &balance.Pool{Policy: policy, Seed: 5}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1", Weight: 100 - weight}, balance.Endpoint{Name: "light", Addr: "b:1", Weight: weight}))
	light := p.Server("light")
	rng := rand.New(rand.NewPCG(1, 2))
	var held []balance.Lease
	picks := 0
	const n = 6000
	for range n {
		l, err := p.Acquire(t.Context(), balance.Request{Key: rng.Uint64()})
		require.NoError(t, err)
		if l.Server() == light {
			picks++
		}
		if held = append(held, l); len(held) > inFlight {
			end := rng.IntN(len(held))
			held[end].Done(balance.Outcome{Class: balance.OK, Latency: 10 * time.Millisecond})
			held = slices.Delete(held, end, end+1)
		}
	}
	for _, l := range held {
		l.Done(balance.Outcome{})
	}
	return float64(picks) / n
}
