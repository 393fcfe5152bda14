// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limiter{Law: GCRA{Rate: PerSecond(10), Burst: 2}}
		require.True(t, l.Take(2).OK)
		require.False(t, l.Take(1).OK)
		_, err := l.Wait(t.Context(), 1)
		require.ErrorIs(t, err, ErrRefused)
		time.Sleep(200 * ms)
		d := l.Take(2)
		require.Zero(t, d.Remaining)
		l.Refund(d)
		require.Equal(t, 2, l.Take(-1).Remaining)
	})
}

// A day of pacing, by many: exactly the rate, in the order of asking.
func TestLimiterPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limiter{Law: GCRA{Rate: PerMinute(1), Burst: 1, MaxWait: 24 * time.Hour}}
		var done atomic.Int64
		var wg sync.WaitGroup
		for range 2000 {
			wg.Go(func() {
				if _, err := l.Wait(t.Context(), 1); err == nil {
					done.Add(1)
				}
			})
		}
		time.Sleep(24*time.Hour + time.Second)
		synctest.Wait()
		require.Equal(t, int64(24*60+1), done.Load())
		wg.Wait()
	})
}

func TestLimiterConcurrently(t *testing.T) {
	l := Limiter{Law: Window{Rate: PerHour(1000)}}
	var ok atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if l.Take(1).OK {
					ok.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(1000), ok.Load())
}

func TestBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Bucket{Rate: PerSecond(10), Burst: 5}
		require.Equal(t, Decision{OK: true, Limit: 5, Remaining: 1, Reset: 400 * ms}, b.Take(4))
		require.Equal(t, Decision{Over: true, Wait: 100 * ms, Limit: 5, Remaining: 1, Reset: 400 * ms}, b.Take(2))
		require.Equal(t, Never, b.Take(6).Wait)
		start := time.Now()
		require.NoError(t, b.Wait(t.Context(), 2))
		require.Equal(t, 100*ms, time.Since(start))
		require.Equal(t, 5, b.Take(-1).Limit)

		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		require.Error(t, b.Wait(ctx, 5))

		var none Bucket
		require.Equal(t, Never, none.Take(1).Wait)
	})
}

func TestDecisionFields(t *testing.T) {
	d := Decision{Limit: 10, Remaining: 3, Reset: 1500 * ms, Wait: 1100 * ms}
	require.Equal(t, 2, d.RetryAfter())
	require.Equal(t, `"ip";r=3;t=2`, string(d.AppendRateLimit(nil, "ip")))
	require.Equal(t, `"ip";q=10;w=60`, string(d.AppendPolicy(nil, "ip", time.Minute)))
	require.Equal(t, `"ip";q=10`, string(d.AppendPolicy(nil, "ip", 0)))
	require.Equal(t, 1, Decision{}.RetryAfter(), "not known is not at once")
	require.Zero(t, Decision{OK: true, Wait: time.Second}.RetryAfter())
	require.Zero(t, Decision{Wait: Never}.RetryAfter())
	require.Equal(t, `"x";r=0`, string(Decision{Reset: Never}.AppendRateLimit(nil, "x")))
}
