// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestLightOneOfTwoIsComparedEachTime has two servers of which the second is drawn once
// in a thousand times: it must be compared nevertheless, or its load is left to chance.
func TestLightOneOfTwoIsComparedEachTime(t *testing.T) {
	for _, policy := range []balance.Policy{balance.TwoChoices{}, balance.PeakEWMA{}} {
		p := &balance.Pool{Policy: policy, Seed: 1}
		require.NoError(t, p.Set(balance.Endpoint{Name: "heavy", Addr: "h:1", Weight: 1000}, balance.Endpoint{Name: "light", Addr: "l:1"}))
		heavy, light := p.Server("heavy"), p.Server("light")
		for _, name := range []string{"heavy", "light"} {
			l, err := p.Acquire(t.Context(), balance.Request{Prefer: name})
			require.NoError(t, err)
			l.Done(balance.Outcome{Latency: 1e6})
		}
		for range 50000 { // so that the light one is far behind
			_, err := p.Acquire(t.Context(), balance.Request{Prefer: "heavy"})
			require.NoError(t, err)
		}
		require.Equal(t, 50000, heavy.InFlight())
		for range 1200 {
			_, err := p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
		}
		require.InDelta(t, 36, light.InFlight(), 10, "%T", policy)
	}
}

// TestManyChoicesLeaveTheLightItsShare has light servers among many that are drawn. Each
// is idle most of the time: if that were compared with all of them in turn, it would get
// up to two and a half times its share.
func TestManyChoicesLeaveTheLightItsShare(t *testing.T) {
	fifteen := []int{30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 1}
	for _, test := range []struct {
		weights  []int
		inFlight int
	}{{fifteen, 100}, {[]int{8, 7, 6, 5, 4, 3, 2, 1}, 10}, {[]int{10, 10, 10, 1}, 10}, {[]int{10, 10, 10, 10, 1, 1, 1, 1}, 10}} {
		for _, n := range []int{3, 5, 16} {
			t.Run(fmt.Sprint(n, " of ", test.weights), func(t *testing.T) {
				got, want := flow(t, balance.TwoChoices{N: n}, test.weights, test.inFlight, func(*rand.Rand) uint64 { return 0 })
				require.InEpsilon(t, want, got, 0.2)
			})
		}
	}
}

// TestBoundOfALightServer pins what the comment at Ring says: a part is a whole number of
// leases, so that the keys of a light server go to others when it has one.
func TestBoundOfALightServer(t *testing.T) {
	for _, policy := range []balance.Policy{balance.Ring{Bound: 1.25}, balance.Maglev{Bound: 1.25}, balance.Rendezvous{Bound: 1.25}} {
		got, want := flow(t, policy, []int{90, 10}, 5, (*rand.Rand).Uint64)
		require.InDelta(t, 0.65, got/want, 0.05, "%T", policy)
		got, want = flow(t, policy, []int{90, 10}, 100, (*rand.Rand).Uint64)
		require.InDelta(t, 0.93, got/want, 0.07, "%T", policy)
	}
}

// flow has so much in flight, which ends at random, and returns how many of 60 000 picks
// the last server got, and how many are its share.
func flow(t *testing.T, policy balance.Policy, weights []int, inFlight int, key func(*rand.Rand) uint64) (got, want float64) {
	t.Helper()
	const picks = 60_000
	p := &balance.Pool{Policy: policy, Seed: 1}
	eps, sum := make([]balance.Endpoint, len(weights)), 0
	for i, w := range weights {
		eps[i] = balance.Endpoint{Name: fmt.Sprint("s", i), Addr: fmt.Sprintf("10.0.0.%d:80", i+1), Weight: w}
		sum += w
	}
	require.NoError(t, p.Set(eps...))
	last := p.Server(eps[len(eps)-1].Name)
	rng := rand.New(rand.NewPCG(1, 1))
	var held []balance.Lease
	for i := range picks + inFlight {
		l, err := p.Acquire(t.Context(), balance.Request{Key: key(rng)})
		require.NoError(t, err)
		if i >= inFlight && l.Server() == last {
			got++
		}
		if held = append(held, l); len(held) > inFlight {
			end := rng.IntN(len(held))
			held[end].Done(balance.Outcome{})
			held[end] = held[inFlight]
			held = held[:inFlight]
		}
	}
	return got, picks * float64(weights[len(weights)-1]) / float64(sum)
}
