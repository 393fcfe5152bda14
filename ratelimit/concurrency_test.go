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

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Concurrency{Max: 1, MaxQueue: 2, MaxWait: time.Second}
		require.NoError(t, c.Acquire(t.Context()))
		require.False(t, c.TryAcquire())

		order := make(chan int, 3)
		for i := range 2 {
			go func() {
				require.NoError(t, c.Acquire(t.Context()))
				order <- i
			}()
			synctest.Wait()
		}
		require.Equal(t, 2, c.Queued())
		require.ErrorIs(t, c.Acquire(t.Context()), ErrRefused, "the line is full")
		c.Release(0)
		require.Equal(t, 0, <-order)
		c.Release(0)
		require.Equal(t, 1, <-order)

		start := time.Now()
		require.ErrorIs(t, c.Acquire(t.Context()), ErrRefused)
		require.Equal(t, time.Second, time.Since(start), "MaxWait")
		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		require.ErrorIs(t, c.Acquire(ctx), context.DeadlineExceeded)
		require.Zero(t, c.Queued())

		c.Release(0)
		require.NoError(t, c.Acquire(ctx), "a free place is taken even if the context is done")
		go func() { order <- -1; require.NoError(t, c.Acquire(t.Context())); order <- 2 }()
		<-order
		synctest.Wait()
		c.SetMax(2)
		require.Equal(t, 2, <-order)
		require.Equal(t, 2, c.Held())
		c.SetMax(1)
		c.Release(0)
		require.False(t, c.TryAcquire())
		c.Release(0)
		require.True(t, c.TryAcquire())
		c.Release(0)
		require.Panics(t, func() { c.Release(0) })

		var none Concurrency
		require.False(t, none.TryAcquire())
		require.ErrorIs(t, none.Acquire(t.Context()), ErrRefused)
	})
}

// Many who come, wait, give up and leave: never more than Max, and none lost.
func TestConcurrencyUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Concurrency{Max: 5, MaxQueue: 50, MaxWait: 30 * ms}
		var now, most, ok, no atomic.Int64
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				time.Sleep(time.Duration(i%37) * ms)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%41)*ms)
				defer cancel()
				if c.Acquire(ctx) != nil {
					no.Add(1)
					return
				}
				n := now.Add(1)
				if n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Duration(1+i%5) * ms)
				now.Add(-1)
				c.Release(0)
				ok.Add(1)
			})
		}
		wg.Wait()
		require.Equal(t, int64(5), most.Load())
		require.Equal(t, int64(500), ok.Load()+no.Load())
		require.Greater(t, ok.Load(), int64(30))
		require.Zero(t, c.Held())
		require.Zero(t, c.Queued())
	})
}

// A machine does so many at once; what is beyond waits inside it.
type machine struct {
	workers int
	work    time.Duration
}

// run has g live with the machine for some windows, under more load than it
// can take, and returns the limits after each.
func (m machine) run(g *gradient, now *time.Duration, windows int) (limits []int) {
	for range windows {
		limit := int(g.limit)
		done := float64(min(limit, m.workers)) / m.work.Seconds() // a second
		took := max(m.work, time.Duration(float64(limit)/done*float64(time.Second)))
		for n := len(limits); len(limits) == n; {
			*now += time.Duration(float64(time.Second) / done)
			if g.sample(*now, took, limit) {
				limits = append(limits, int(g.limit))
			}
		}
	}
	return limits
}

func mean(list []int) float64 {
	sum := 0
	for _, v := range list {
		sum += v
	}
	return float64(sum) / float64(len(list))
}

func newGradient() *gradient {
	var a Adaptive
	a.init()
	return &a.state
}

// The limit finds what the machine can do, from below and from above, follows
// it, and never dips.
func TestAdaptiveFindsTheLimit(t *testing.T) {
	for _, workers := range []int{5, 10, 40, 100} {
		g, now := newGradient(), time.Duration(0)
		m := machine{workers, 50 * ms}
		m.run(g, &now, 400)
		settled := m.run(g, &now, 400)
		t.Logf("%d workers: limit %.0f on average", workers, mean(settled))
		require.GreaterOrEqual(t, mean(settled), 0.8*float64(workers))
		require.LessOrEqual(t, mean(settled), 1.6*float64(workers)+5)
		for i := 1; i < len(settled); i++ {
			require.InDelta(t, settled[i-1], settled[i], 3, "no dips")
		}
	}
}

func TestAdaptiveFollowsChange(t *testing.T) {
	g, now := newGradient(), time.Duration(0)
	machine{80, 50 * ms}.run(g, &now, 400)
	before := g.limit
	machine{20, 50 * ms}.run(g, &now, 300)
	require.Less(t, g.limit, before*0.6, "three quarters of the machine are gone")
	machine{80, 50 * ms}.run(g, &now, 600)
	require.Greater(t, g.limit, 60.0, "and are back")
}

// A limit that nobody uses does not grow.
func TestAdaptiveUnused(t *testing.T) {
	g := newGradient()
	now := time.Duration(0)
	for range 10_000 {
		now += 10 * ms
		g.sample(now, 10*ms, 1)
	}
	require.InDelta(t, 20, g.limit, 0.1)
}

func TestAdaptive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := Adaptive{Initial: 4, MaxQueue: 1000}
		machine := make(chan struct{}, 16)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for a.Acquire(ctx) == nil && ctx.Err() == nil {
					start := time.Now()
					machine <- struct{}{}
					time.Sleep(100 * ms)
					<-machine
					a.Release(time.Since(start))
				}
				// what was acquired at the very end is no sample
			})
		}
		wg.Wait()
		t.Logf("limit %d for 16 at once", a.Limit())
		require.GreaterOrEqual(t, a.Limit(), 12)
		require.LessOrEqual(t, a.Limit(), 32)

		b := Adaptive{Initial: 1}
		require.True(t, b.TryAcquire())
		require.False(t, b.TryAcquire())
		b.Release(-1)
		require.Zero(t, b.Held())
	})
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * ms)
	}
	require.InEpsilon(t, float64(900*ms), float64(h.quantile(0.9)), 0.07)
	require.InEpsilon(t, float64(500*ms), float64(h.quantile(0.5)), 0.07)
	h.add(0)
	h.add(Never)
	require.Positive(t, h.quantile(1))
	require.Zero(t, new(histogram).quantile(0.9))
}

func BenchmarkConcurrency(b *testing.B) {
	c := Concurrency{Max: 10}
	b.ReportAllocs()
	for b.Loop() {
		if c.TryAcquire() {
			c.Release(0)
		}
	}
}

func BenchmarkAdaptive(b *testing.B) {
	var a Adaptive
	b.ReportAllocs()
	for b.Loop() {
		if a.TryAcquire() {
			a.Release(time.Millisecond)
		}
	}
}
