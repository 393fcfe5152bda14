// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// chaosTime is how long one test of chaos runs: a part of a second, or what
// PENSTOCK_CHAOS says.
func chaosTime(t *testing.T) time.Duration {
	s := os.Getenv("PENSTOCK_CHAOS")
	if s == "" {
		return 300 * ms
	}
	d, err := time.ParseDuration(s)
	require.NoError(t, err, "PENSTOCK_CHAOS")
	return d
}

// chaos runs step in twelve goroutines until the time is over.
func chaos(t *testing.T, step func(rnd *rand.Rand)) {
	t.Helper()
	var wg sync.WaitGroup
	end := time.Now().Add(chaosTime(t))
	for g := range 12 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 42))
			for ok := true; ok; ok = time.Now().Before(end) { // once, however late it comes to it
				step(rnd)
			}
		})
	}
	wg.Wait()
}

// flaps is a store that fails, or is slow, at times.
type flaps struct {
	MemoryStore
	calls atomic.Int64
}

func (f *flaps) Take(ctx context.Context, key string, law Law, n int) (Decision, error) {
	switch i := f.calls.Add(1); {
	case i/500%3 == 1:
		return Decision{}, errors.New("away")
	case i%100 == 0:
		<-ctx.Done()
		return Decision{}, ctx.Err()
	}
	return f.MemoryStore.Take(ctx, key, law, n)
}

// On the real clock, by many at once, with refunds, floods and a store that
// comes and goes: no limit admits more than its law.
func TestChaosLimits(t *testing.T) {
	const rate, burst = 2000, 500
	law := GCRA{Rate: PerSecond(rate), Burst: burst}
	window := Window{Rate: Rate{Count: 100, Per: 50 * ms}}
	bucket := &Bucket{Rate: law.Rate, Burst: burst}
	keyed := &Keyed[int]{Law: law, Max: 1 << 16}
	shared := &Shared[string]{Law: law, Store: &flaps{}, Timeout: ms, Retry: 5 * ms, Logger: slog.New(slog.DiscardHandler)}
	one := &Limiter{Law: law}
	counted := &Limiter{Law: window}
	limits := []struct {
		name   string
		take   func(n int) Decision
		refund func(Decision)
	}{
		{"Bucket", bucket.Take, nil},
		{"Limiter", one.Take, one.Refund},
		{"Window", counted.Take, counted.Refund},
		{"Keyed", func(n int) Decision { return keyed.Take(-1, n) }, func(d Decision) { keyed.Refund(-1, d) }},
		{"Shared", func(n int) Decision { return shared.Take("k", n) }, func(d Decision) { shared.Refund("k", d) }},
	}
	var admitted [5][2]atomic.Int64 // by limit, and by whether the decision was local
	start := time.Now()
	chaos(t, func(rnd *rand.Rand) {
		for i, l := range limits {
			n := 1 + rnd.IntN(3)
			d := l.take(n)
			sound(t, d, "%s", l.name)
			if !d.OK {
				runtime.Gosched()
				continue
			}
			where := 0
			if d.Local {
				where = 1
			}
			if l.refund != nil && rnd.IntN(10) == 0 && l.name != "Shared" { // of a Shared it may get lost
				l.refund(d)
				continue
			}
			admitted[i][where].Add(int64(n))
		}
		keyed.Take(rnd.IntN(1000), 1)
		keyed.Forget(rnd.IntN(1000))
	})
	elapsed := time.Since(start)
	most := int64(burst + elapsed.Seconds()*rate + 1)
	for i, l := range limits {
		for where := range admitted[i] {
			n, most := admitted[i][where].Load(), most
			if l.name == "Window" {
				most = int64(elapsed.Seconds()*2000) + 200
			}
			require.LessOrEqual(t, n, most, "%s in %v", l.name, elapsed)
			if where == 0 && l.name != "Shared" {
				require.Positive(t, n, "%s in %v", l.name, elapsed) // how much more depends on the machine
			}
		}
	}
	require.Zero(t, keyed.Stats().Lost)
}

// Callers that do nothing else but ask.
func TestChaosBucket(t *testing.T) {
	for _, law := range []GCRA{{Rate: PerSecond(1000), Burst: 100}, {Rate: PerSecond(50), Burst: 1}} {
		b := &Bucket{Rate: law.Rate, Burst: law.Burst}
		var admitted atomic.Int64
		start := time.Now()
		chaos(t, func(*rand.Rand) {
			if b.Take(1).OK {
				admitted.Add(1)
			}
		})
		most := float64(law.Burst) + time.Since(start).Seconds()*float64(law.Rate.Count)
		require.LessOrEqual(t, float64(admitted.Load()), most)
		require.Positive(t, admitted.Load()) // how much more depends on the machine
	}
}

// While the clock stands still there are as many tokens as the burst, and callers at
// once get neither more nor fewer.
func TestBucketUnderContention(t *testing.T) {
	for _, law := range []GCRA{{Rate: PerSecond(1000), Burst: 100}, {Rate: PerSecond(50), Burst: 1}} {
		synctest.Test(t, func(t *testing.T) {
			b := &Bucket{Rate: law.Rate, Burst: law.Burst}
			for round := range 50 {
				var admitted atomic.Int64
				var callers sync.WaitGroup
				for range 8 {
					callers.Go(func() {
						for range 4 * law.Burst {
							if b.Take(1).OK {
								admitted.Add(1)
							}
						}
					})
				}
				callers.Wait()
				require.EqualValues(t, law.Burst, admitted.Load(), "round %d", round)
				time.Sleep(time.Duration(law.Burst) * time.Second / time.Duration(law.Rate.Count))
			}
		})
	}
}

// Places of keys that are forgotten, evicted and looked at meanwhile: never
// more at once than the law allows one life of a key, and none left at the end.
func TestChaosPlaces(t *testing.T) {
	const most, keys = 3, 40
	l := &Keyed[int]{Law: InFlight{most}, Max: 16}
	type life struct {
		key  int
		life uint32
	}
	var held sync.Map // life -> *atomic.Int64
	chaos(t, func(rnd *rand.Rand) {
		k := rnd.IntN(keys)
		d := l.Take(k, 1)
		if d.OK && d.Cost == 1 {
			v, _ := held.LoadOrStore(life{k, d.Life}, new(atomic.Int64))
			n := v.(*atomic.Int64)
			if now := n.Add(1); now > most {
				t.Errorf("%d at once of key %d", now, k)
			}
			if rnd.IntN(4) == 0 {
				runtime.Gosched()
			}
			n.Add(-1)
			l.Refund(k, d)
		}
		if rnd.IntN(50) == 0 {
			l.Forget(rnd.IntN(keys))
		}
		if rnd.IntN(100) == 0 {
			for range l.All() {
			}
		}
	})
	for k, d := range l.All() {
		require.Equal(t, most, d.Remaining, "key %d", k)
	}
}

// Callers that come, wait, give up and go, while the number of places changes.
func TestChaosConcurrency(t *testing.T) {
	c := &Concurrency{Max: 4, MaxQueue: 6, MaxWait: 2 * ms}
	a := &Adaptive{Initial: 4, Max: 8, MaxQueue: 6, Window: ms}
	var held, heldA atomic.Int64
	chaos(t, func(rnd *rand.Rand) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rnd.IntN(3))*ms)
		defer cancel()
		if c.Acquire(ctx) == nil {
			if n := held.Add(1); n > 5 {
				t.Errorf("%d at once", n)
			}
			if rnd.IntN(4) == 0 {
				time.Sleep(time.Duration(rnd.IntN(int(ms))))
			}
			held.Add(-1)
			c.Release(0)
		}
		if rnd.IntN(20) == 0 {
			c.SetMax(rnd.IntN(6))
		}
		if a.Acquire(ctx) == nil {
			if n := heldA.Add(1); n > 8 {
				t.Errorf("%d at once of an Adaptive", n)
			}
			took := time.Duration(rnd.IntN(int(ms)))
			if rnd.IntN(8) == 0 {
				time.Sleep(took)
			}
			heldA.Add(-1)
			a.Release(took)
		}
	})
	require.Zero(t, c.Held())
	require.Zero(t, c.Queued())
	require.Zero(t, a.Held())
	c.SetMax(4)
	for range 4 {
		require.True(t, c.TryAcquire(), "nobody is left in the line beside a free place")
	}
	require.False(t, c.TryAcquire())
}
