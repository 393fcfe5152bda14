// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The longest duration there is means a long time, wherever something is added
// to it.
func TestLongestDurations(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	r := seeded(1)
	for range 100 {
		require.Positive(t, r.around(most, 1))
	}
	for _, at := range []time.Duration{0, time.Hour, most / 2, most - 1} {
		if _, next := (SlowStart{Window: most}).part(at); next != 0 {
			require.Positive(t, next, "at %v", at)
		}
	}
	part, next := SlowStart{Window: most, Aggression: 0.01}.part(time.Hour)
	require.True(t, part <= 1 && next > time.Hour, "%v for %v", part, next)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		calls := 0
		_ = Poll{Interval: most, Jitter: 1, Func: func(context.Context) ([]Endpoint, error) {
			calls++
			return nil, nil
		}}.Watch(ctx, func([]Endpoint, error) {})
		require.Equal(t, 1, calls)
		p := &Pool{Queue: Queue{Timeout: most}}
		require.NoError(t, p.Set(Endpoint{Addr: "a:1", MaxConns: 1}))
		l, err := p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		time.AfterFunc(time.Minute, func() { l.Done(Outcome{}) })
		l, err = p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		l.Done(Outcome{})
	})
}

// A bound without bound is none: one server may have all leases.
func TestGreatestBounds(t *testing.T) {
	for _, factor := range []float64{1e18, 1e300, math.Inf(1)} {
		for _, policy := range []Policy{Ring{Bound: factor}, Maglev{Bound: factor}, Rendezvous{Bound: factor}} {
			p := &Pool{Policy: policy}
			require.NoError(t, p.Set(Endpoint{Addr: "a:1"}, Endpoint{Addr: "b:1"}, Endpoint{Addr: "c:1"}))
			servers := map[*Server]int{}
			for range 50 {
				l, err := p.Acquire(t.Context(), Request{Key: Hash("k")})
				require.NoError(t, err)
				servers[l.Server()]++
				defer l.Done(Outcome{})
			}
			require.Len(t, servers, 1, "%T %g", policy, factor)
		}
	}
}

// A quantile outside of 0 to 1 is the nearer end.
func TestQuantilesOutOfRange(t *testing.T) {
	var h Histogram
	h.counts[3], h.counts[5] = 10, 10
	for q, want := range map[float64]int{-1: 3, math.Inf(-1): 3, 0: 3, 0.5: 3, 0.51: 5, 1: 5, 1.5: 5, math.Inf(1): 5} {
		require.Equal(t, bucketEnd(want), h.Quantile(q), "%v", q)
	}
	require.Equal(t, bucketEnd(5), h.Quantile(math.NaN()))
}
