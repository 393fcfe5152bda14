// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/ratelimit"
)

func TestLaws(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	store := &Store{Client: client}
	ctx := context.Background()
	take := func(key string, law ratelimit.Law, n int) ratelimit.Decision {
		t.Helper()
		d, err := store.Take(ctx, key, law, n)
		require.NoError(t, err)
		return d
	}
	for name, law := range map[string]ratelimit.Law{
		"gcra": ratelimit.GCRA{Rate: ratelimit.PerHour(5)}, "window": ratelimit.Window{Rate: ratelimit.PerHour(5)},
	} {
		t.Run(name, func(t *testing.T) {
			d := take(name, law, 0)
			require.Equal(t, 5, d.Remaining)
			require.Zero(t, client.Exists(ctx, "penstock:"+name).Val(), "a look keeps nothing")
			d = take(name, law, 3)
			require.True(t, d.OK)
			require.Equal(t, 2, d.Remaining)
			require.Equal(t, 3, d.Cost)
			no := take(name, law, 3)
			require.False(t, no.OK)
			require.True(t, no.Over)
			require.Positive(t, no.Wait)
			require.LessOrEqual(t, no.Wait, 2*time.Hour)
			require.NoError(t, store.Refund(ctx, name, law, d))
			require.True(t, take(name, law, 5).OK)
			require.Equal(t, ratelimit.Never, take(name, law, 6).Wait)
			require.Positive(t, client.PTTL(ctx, "penstock:"+name).Val())
			require.LessOrEqual(t, client.PTTL(ctx, "penstock:"+name).Val(), 2*time.Hour+time.Second)
		})
	}

	paced := ratelimit.GCRA{Rate: ratelimit.PerHour(3600), Burst: 1, MaxWait: 3 * time.Second}
	first := take("paced", paced, 1)
	d := take("paced", paced, 1)
	require.True(t, d.OK)
	require.InDelta(t, max(0, time.Second-(d.At-first.At)), d.Wait, float64(20*time.Microsecond))

	strict := ratelimit.Window{Rate: ratelimit.PerHour(2), CountRefused: true}
	take("strict", strict, 2)
	take("strict", strict, 1)
	v, err := client.Get(ctx, "penstock:strict").Result()
	require.NoError(t, err)
	require.Regexp(t, `:3$`, v, "refusals count")

	require.False(t, take("none", ratelimit.GCRA{}, 1).OK)
	_, err = store.Take(ctx, "held", ratelimit.InFlight{Max: 1}, 1)
	require.ErrorIs(t, err, ratelimit.ErrLaw)
}

// The scripts decide as the laws do in memory, on the same clock.
func TestScriptsAgreeWithTheLaws(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	store := &Store{Client: client}
	laws := []ratelimit.Law{
		ratelimit.GCRA{Rate: ratelimit.Rate{Count: 7, Per: 100 * time.Millisecond}, Burst: 5},
		ratelimit.GCRA{Rate: ratelimit.PerSecond(100), Burst: 2, MaxWait: 20 * time.Millisecond},
		ratelimit.Window{Rate: ratelimit.Rate{Count: 9, Per: 50 * time.Millisecond}},
		ratelimit.Window{Rate: ratelimit.Rate{Count: 4, Per: 30 * time.Millisecond}, CountRefused: true},
	}
	for i, law := range laws {
		var state int64
		admitted := 0
		for step := range 300 {
			n := 1 + step%3
			d, err := store.Take(context.Background(), key(t, i), law, n)
			require.NoError(t, err)
			next, want := law.Take(state, d.At, n)
			state = next
			require.Equal(t, want.OK, d.OK, "%+v step %d: %+v, want %+v", law, step, d, want)
			require.Equal(t, want.Remaining, d.Remaining, "%+v step %d", law, step)
			require.InDelta(t, want.Wait, d.Wait, float64(20*time.Microsecond))
			if d.OK {
				admitted++
			}
			time.Sleep(time.Duration(step%5) * time.Millisecond)
			if step%30 == 29 {
				time.Sleep(70 * time.Millisecond) // a rest, so that all of them admit again, also who counts refusals
			}
		}
		require.Greater(t, admitted, 10)
	}
}

// Two gateways share one limit exactly: what both admit together is what the
// law allows, whoever asks.
func TestTwoGateways(t *testing.T) {
	for _, kind := range []string{"single", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			var addrs []string
			if kind == "single" {
				addrs = []string{start(t).addr}
			} else {
				addrs = cluster(t)
			}
			law := ratelimit.GCRA{Rate: ratelimit.PerHour(50)}
			const keys = 20
			var admitted [keys]atomic.Int64
			var wg sync.WaitGroup
			for range 2 {
				client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
				defer client.Close()
				limit := &ratelimit.Shared[string]{Store: &Store{Client: client}, Law: law, Timeout: 10 * time.Second}
				for g := range 4 {
					wg.Go(func() {
						for i := range 500 {
							k := (i + g) % keys
							d := limit.Take(key(t, k), 1)
							if d.Local {
								t.Error("the store is there, and was not asked")
							}
							if d.OK {
								admitted[k].Add(1)
							}
						}
					})
				}
			}
			wg.Wait()
			for k := range admitted {
				require.Equal(t, int64(50), admitted[k].Load(), "key %d", k)
			}
		})
	}
}

// Redis is killed and restarted under load: nobody waits for it, nobody is
// refused because of it, and it is said when limits are local.
func TestRedisGoesAndComes(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	defer client.Close()
	var changes atomic.Int64
	var away atomic.Bool
	limit := &ratelimit.Shared[string]{
		Store: &Store{Client: client}, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1_000_000)},
		Timeout: 10 * time.Second, // a Redis that is killed says so at once, and one on a busy machine is not away
		Retry:   100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		OnOutage: func(err error) {
			changes.Add(1)
			away.Store(err != nil)
		},
	}
	var slowest, refused, local, shared atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	started := time.Now()
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				d := limit.Take("k", 1)
				if took := int64(time.Since(begin)); took > slowest.Load() {
					slowest.Store(took)
				}
				switch {
				case !d.OK:
					refused.Add(1)
				case d.Local:
					local.Add(1)
				default:
					shared.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range 2 {
		time.Sleep(300 * time.Millisecond)
		s.down()
		require.Eventually(t, away.Load, time.Minute, time.Millisecond)
		require.True(t, limit.Take("k", 1).Local)
		time.Sleep(300 * time.Millisecond)
		s.up()
		require.Eventually(t, func() bool { return !limit.Take("k", 1).Local && !away.Load() }, time.Minute, time.Millisecond)
	}
	cancel()
	wg.Wait()
	t.Logf("%d shared, %d local, slowest %v", shared.Load(), local.Load(), time.Duration(slowest.Load()))
	require.Zero(t, refused.Load())
	require.Positive(t, local.Load())
	require.Positive(t, shared.Load())
	// A client that could not dial fails for up to a second more, but over connections it has.
	require.GreaterOrEqual(t, changes.Load(), int64(4))
	require.LessOrEqual(t, changes.Load(), 2+2*int64(time.Since(started)/limit.Retry), "an outage lasts for Retry at least")
}

// Laws behind pointers are known, and late refunds give back what they would in
// memory.
func TestPointersAndLateRefunds(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	store := &Store{Client: client}
	ctx := context.Background()
	for i, law := range []ratelimit.Law{&ratelimit.GCRA{Rate: ratelimit.PerHour(5)}, &ratelimit.Window{Rate: ratelimit.PerHour(5)}} {
		first, err := store.Take(ctx, key(t, i), law, 5)
		require.NoError(t, err)
		require.True(t, first.OK)
		require.Equal(t, 5, first.Limit)
		require.NoError(t, client.Del(ctx, "penstock:"+key(t, i)).Err()) // three hours pass
		first.At -= 3 * time.Hour
		second, err := store.Take(ctx, key(t, i), law, 5)
		require.NoError(t, err)
		require.True(t, second.OK)
		require.NoError(t, store.Refund(ctx, key(t, i), law, first))
		d, err := store.Take(ctx, key(t, i), law, 5)
		require.NoError(t, err)
		require.False(t, d.OK, "%T: time had brought it back", law)
	}
}

// The largest and smallest numbers come back as what a Decision can say.
func TestExtremes(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	store := &Store{Client: client}
	ctx := context.Background()
	i := 0
	for _, count := range []int{math.MinInt, 0, 1, 1_000_000, math.MaxInt} {
		for _, per := range []time.Duration{math.MinInt64, 0, 1, 1000 * time.Hour, ratelimit.Never} {
			rate := ratelimit.Rate{Count: count, Per: per}
			for _, law := range []ratelimit.Law{
				ratelimit.Window{Rate: rate}, ratelimit.Window{Rate: rate, CountRefused: true},
				ratelimit.GCRA{Rate: rate, Burst: count}, ratelimit.GCRA{Rate: rate, Burst: math.MaxInt, MaxWait: per},
			} {
				i++
				for _, n := range []int{0, math.MaxInt, 1, math.MinInt} {
					d, err := store.Take(ctx, key(t, i), law, n)
					require.NoError(t, err, "%+v", law)
					if d.Wait < 0 || d.Reset < 0 || d.Remaining < 0 || d.Limit < d.Remaining || d.Over == d.OK {
						t.Errorf("%+v takes %d: %+v", law, n, d)
					}
					require.NoError(t, store.Refund(ctx, key(t, i), law, ratelimit.Decision{Cost: math.MinInt, At: d.At, Reset: ratelimit.Never}))
				}
				all, err := store.Take(ctx, key(t, i), law, 0)
				require.NoError(t, err)
				d, err := store.Take(ctx, key(t, i), law, all.Remaining)
				require.NoError(t, err)
				require.True(t, d.OK || d.Wait < time.Second, "%+v says that %d remain: %+v", law, all.Remaining, d)
			}
		}
	}
}

// A clock of Redis that has stepped back does not open a window.
func TestWindowAfterAStepBack(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	store := &Store{Client: client}
	ctx := context.Background()
	law := ratelimit.Window{Rate: ratelimit.PerSecond(5)}
	d, err := store.Take(ctx, "a", law, 0)
	require.NoError(t, err)
	ahead := int64(d.At/time.Second) + 20
	require.NoError(t, client.Set(ctx, "penstock:a", fmt.Sprintf("%d:0:5", ahead), 0).Err())
	d, err = store.Take(ctx, "a", law, 1)
	require.NoError(t, err)
	require.False(t, d.OK)
	require.NoError(t, client.Set(ctx, "penstock:a", fmt.Sprintf("%d:0:5", ahead+3600), 0).Err())
	d, err = store.Take(ctx, "a", law, 1)
	require.NoError(t, err)
	require.True(t, d.OK, "by an hour: it is taken for an old one")
}

// A clock of Redis that has stepped back by an hour does not close a bucket for an hour: it
// counts as used up, and fills as ever.
func TestBucketAfterAStepBack(t *testing.T) {
	s := start(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
	defer client.Close()
	store := &Store{Client: client}
	ctx := context.Background()
	for name, law := range map[string]ratelimit.GCRA{
		"plain": {Rate: ratelimit.PerSecond(100), Burst: 5},
		"paced": {Rate: ratelimit.PerSecond(100), Burst: 5, MaxWait: 50 * time.Millisecond},
	} {
		look, err := store.Take(ctx, name, law, 0)
		require.NoError(t, err)
		ahead := (look.At + time.Hour).Microseconds()
		require.NoError(t, client.Set(ctx, "penstock:"+name, ahead, 2*time.Hour).Err())
		none, err := store.Take(ctx, name, law, 1)
		require.NoError(t, err)
		require.False(t, none.OK, name)
		require.LessOrEqual(t, none.Wait, 10*time.Millisecond, name)
		require.LessOrEqual(t, client.PTTL(ctx, "penstock:"+name).Val(), time.Second, name)
		require.Eventually(t, func() bool {
			d, err := store.Take(ctx, name, law, 1)
			return err == nil && d.OK
		}, time.Minute, 10*time.Millisecond, name)

		require.NoError(t, client.Set(ctx, "penstock:"+name, ahead, 2*time.Hour).Err())
		require.NoError(t, store.Refund(ctx, name, law, ratelimit.Decision{Cost: 5, At: look.At + time.Hour, Reset: 50 * time.Millisecond}))
		d, err := store.Take(ctx, name, law, 0)
		require.NoError(t, err)
		require.LessOrEqual(t, d.Reset, time.Second, name)
	}
}
