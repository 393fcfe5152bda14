// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// limits are all that decide under a law. Each has a key of its own.
func limits(law Law) map[string]interface {
	Take(n int) Decision
	Refund(d Decision)
} {
	store := &MemoryStore{}
	return map[string]interface {
		Take(n int) Decision
		Refund(d Decision)
	}{
		"Limiter": &Limiter{Law: law},
		"Keyed":   oneKey{&Keyed[string]{Law: law}},
		"Shared":  oneKey{&Shared[string]{Law: law, Store: store, Timeout: time.Hour}},
		"Local":   oneKey{&Shared[string]{Law: law}},
		"Store":   inStore{store, law},
	}
}

type oneKey struct {
	limit interface {
		Take(key string, n int) Decision
		Refund(key string, d Decision)
	}
}

func (k oneKey) Take(n int) Decision { return k.limit.Take("k", n) }
func (k oneKey) Refund(d Decision)   { k.limit.Refund("k", d) }

type inStore struct {
	store Store
	law   Law
}

func (s inStore) Take(n int) Decision {
	d, _ := s.store.Take(context.Background(), "direct", s.law, n)
	return d
}

func (s inStore) Refund(d Decision) { _ = s.store.Refund(context.Background(), "direct", s.law, d) }

const steps = 301

// hammer has that many goroutines take all they get, each millisecond, and
// returns what was admitted until each.
func hammer(goroutines int, take func(int) Decision) [steps]int64 {
	var admitted atomic.Int64
	var until [steps]int64
	for ms := range until {
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for take(1).OK {
					admitted.Add(1)
					runtime.Gosched()
				}
			})
		}
		wg.Wait()
		until[ms] = admitted.Load()
		time.Sleep(time.Millisecond)
	}
	return until
}

// Whoever asks, and however many at once: what is admitted is what a token
// bucket in plain arithmetic admits.
func TestContentionBucket(t *testing.T) {
	for _, g := range []int{1, 2, 8, 64} {
		for _, b := range []struct{ rate, burst int }{{1000, 100}, {10, 1}, {7, 20}} {
			law := GCRA{Rate: PerSecond(b.rate), Burst: b.burst}
			want := func(ms int) int64 { return int64(b.burst) + int64(b.rate)*int64(ms)/1000 }
			t.Run(fmt.Sprintf("%d/%d of %d", g, b.rate, b.burst), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					plain := &Bucket{Rate: law.Rate, Burst: law.Burst}
					for ms, n := range hammer(g, plain.Take) {
						require.InDelta(t, want(ms), n, 1, "Bucket after %d ms", ms) // it reckons in fractions
						require.LessOrEqual(t, n, want(ms), "Bucket after %d ms", ms)
					}
				})
				for name, l := range limits(law) {
					synctest.Test(t, func(t *testing.T) {
						for ms, n := range hammer(g, l.Take) {
							require.InDelta(t, want(ms), n, 1, "%s after %d ms", name, ms) // intervals are rounded up
							require.LessOrEqual(t, n, want(ms), "%s after %d ms", name, ms)
						}
					})
				}
			})
		}
	}
}

func TestContentionWindow(t *testing.T) {
	for _, g := range []int{1, 2, 8, 64} {
		law := Window{Rate: Rate{Count: 13, Per: 100 * time.Millisecond}}
		for name := range limits(law) {
			t.Run(fmt.Sprintf("%d/%s", g, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := limits(law)[name]
					l.Take(0) // the clock begins here
					model := exactWindow{int64(law.Rate.Per), map[int64]int64{}}
					var want int64
					for ms, n := range hammer(g, l.Take) {
						now := int64(time.Duration(ms) * time.Millisecond)
						for model.admits(now, 1, 13) {
							model.counts[now/model.per]++
							want++
						}
						require.Equal(t, want, n, "after %d ms", ms)
					}
				})
			})
		}
	}
}

func TestContentionInFlight(t *testing.T) {
	for _, g := range []int{1, 2, 8, 64} {
		for name := range limits(InFlight{Max: 5}) {
			t.Run(fmt.Sprintf("%d/%s", g, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := limits(InFlight{Max: 5})[name]
					var held, most atomic.Int64
					var wg sync.WaitGroup
					for range g {
						wg.Go(func() {
							for range 100 {
								if d := l.Take(1); d.OK {
									n := held.Add(1)
									for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
									}
									time.Sleep(time.Millisecond)
									held.Add(-1)
									l.Refund(d)
								} else {
									time.Sleep(time.Millisecond)
								}
							}
						})
					}
					wg.Wait()
					require.Equal(t, int64(min(g, 5)), most.Load())
					require.Equal(t, 5, l.Take(0).Remaining, "all places are given back")
				})
			})
		}
	}
}

// A goroutine that was held up between reading the clock and taking does not
// turn the bucket's clock back, which would give out the same time twice.
func TestBucketAfterALateReader(t *testing.T) {
	b := Bucket{Rate: PerSecond(10), Burst: 5}
	early := time.Now()
	late := early.Add(time.Second)
	require.True(t, b.take(late, 1).OK)
	require.True(t, b.take(early, 1).OK)
	require.Equal(t, 3, b.take(late, 0).Remaining)
	_, wait := b.reserve(early, 5)
	require.Equal(t, 200*ms, wait)
}

// A refusal takes nothing, and a wait that is given up gives back.
func TestBucketGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Bucket{Rate: PerSecond(10), Burst: 5}
		for range 1000 {
			require.False(t, b.Take(6).OK)
		}
		require.Equal(t, 5, b.Take(0).Remaining)
		require.NoError(t, b.Wait(t.Context(), 5))
		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		for range 1000 {
			require.ErrorIs(t, b.Wait(ctx, 1), context.DeadlineExceeded, "at once")
		}
		require.ErrorIs(t, b.Wait(t.Context(), 6), ErrRefused)
		cancel()
		require.ErrorIs(t, b.Wait(ctx, 1), context.Canceled)
		time.Sleep(500 * ms)
		require.Equal(t, 5, b.Take(0).Remaining)
	})
}

// What is given back late is given back as far as it would still be missing,
// so that given-back and regained events are not admitted twice.
func TestLateRefundOfGCRA(t *testing.T) {
	law := GCRA{Rate: PerSecond(1), Burst: 5}
	state, first := law.Take(0, 0, 5)
	first = first.stamp(0, 5)
	state, d := law.Take(state, 4900*ms, 4)
	require.True(t, d.OK)
	state = law.Refund(state, 4950*ms, first)
	_, d = law.Take(state, 4950*ms, 2)
	require.False(t, d.OK, "4.9 of the 5 had come back by time")
	require.Equal(t, law.Refund(state, time.Hour, first), state)
}

// Against the events written down: a bucket is never fuller than one that did
// not see what was given back.
func TestRefundsOfGCRAAgreeWithTheModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	for range 2000 {
		g := GCRA{Rate: Rate{1 + rnd.IntN(50), time.Duration(1 + rnd.Int64N(int64(time.Second)))}, Burst: 1 + rnd.IntN(20)}
		var log []Decision
		model := func() (full time.Duration) {
			for _, d := range log {
				full = max(full, d.At) + time.Duration(d.Cost)*g.Rate.interval()
			}
			return full
		}
		var state int64
		now := time.Duration(rnd.Int64N(int64(time.Hour)))
		back := rnd.IntN(50)
		for step := range 100 {
			now += time.Duration(rnd.ExpFloat64() * float64(g.Rate.interval()))
			n := 1 + rnd.IntN(3)
			next, d := g.Take(state, now, n)
			if state = next; d.OK {
				log = append(log, d.stamp(now, n))
			}
			if len(log) > 0 && step == back {
				i := rnd.IntN(len(log))
				state = g.Refund(state, now, log[i])
				log = slices.Delete(log, i, i+1)
			}
			require.GreaterOrEqual(t, max(time.Duration(state), now), model(), "%+v", g)
		}
	}
}
