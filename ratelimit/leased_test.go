// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLeaseStates walks the table of a lease's states.
func TestLeaseStates(t *testing.T) {
	make := func() *lease {
		law := GCRA{Rate: PerSecond(1000)}
		return &lease{law: law, rate: law.Rate, limit: 1000, credit: 10, margin: 20, late: 25 * ms}
	}
	yes := func(left int) Decision { return Decision{OK: true, Remaining: left} }
	l := make()
	require.Equal(t, verdictYes, l.take(10, 0, false), "on credit")
	require.Equal(t, verdictAsk, l.take(1, 0, false), "the store has room, for all that is known")
	require.Equal(t, verdictNo, l.take(1001, 0, false), "more than the law ever admits")
	require.Equal(t, verdictYes, l.take(0, 0, false), "a look")
	n, ok := l.ask(0, 0)
	require.True(t, ok)
	require.Equal(t, 10, n)
	require.Equal(t, verdictAsk, l.take(1, 5*ms, false))
	l.answered(l.law, yes(990), 5*ms)
	require.Zero(t, l.owed)

	// Near the limit nothing is asked for alone.
	l.take(10, 6*ms, false)
	l.ask(6*ms, 0)
	l.answered(l.law, Decision{Over: true, Remaining: 3, Wait: 7 * ms}, 11*ms)
	require.Equal(t, 10, l.owed, "it was not paid")
	require.Equal(t, verdictNo, l.take(1, 12*ms, false))
	require.Equal(t, 18*ms, l.due(12*ms), "when it has enough, at best")
	require.Equal(t, verdictNo, l.take(1, 20*ms, false), "it has 17 at best")
	require.Equal(t, verdictAsk, l.take(1, 60*ms, false))

	// A question that fails leaves it alone, with a third of what is used.
	l = make()
	l.take(10, 0, false)
	l.ask(0, 0)
	l.answered(l.law, yes(700), 5*ms)
	l.take(6, 5*ms, false)
	l.ask(5*ms, 0)
	l.failed()
	require.Equal(t, 105, l.share(3, 5*ms), "(300 - what 5 ms bring back)/3, and what is owed")
	require.Equal(t, verdictLocal, l.take(1, 5*ms, false))
	require.Equal(t, 15*ms, l.due(5*ms))
	for range 20 {
		l.ask(5*ms, 0)
		l.failed()
	}
	require.Equal(t, 1285*ms, l.due(5*ms), "ever later: it may be one of many on a node of the store that is gone")
	l.told = told
	l.admit(400)
	n, ok = l.ask(time.Second, 333)
	require.True(t, ok)
	require.Equal(t, 333, n, "the rest time has brought back")
	l.answered(l.law, yes(500), time.Second)
	require.Equal(t, verdictLocal, l.take(1, time.Second, true), "others may not have charged it yet")
	require.Equal(t, verdictYes, l.take(1, 2*time.Second, false))

	// One that is late leaves it alone when the credit is used up, and not before.
	l = make()
	l.take(5, 0, false)
	l.ask(0, 0)
	require.Equal(t, verdictYes, l.take(5, 30*ms, false))
	require.Equal(t, verdictLocal, l.take(1, 30*ms, false))
	l.answered(l.law, yes(990), 40*ms)
	require.Equal(t, verdictAsk, l.take(10, 41*ms, false))
	require.Equal(t, 5, l.owed)

	// An outage.
	require.Equal(t, verdictLocal, l.take(1, 50*ms, true))
	l.told = told
	_, ok = l.ask(60*ms, 0)
	require.False(t, ok, "nothing is owed any longer, and others find out whether it is back")
	require.Equal(t, verdictYes, l.take(1, time.Second, false))
	l.ask(time.Second, 0)
	l.failed()
	l.owed = 0
	_, ok = l.ask(2*time.Second, 0)
	require.True(t, ok, "but if a question of its own has failed: does it answer?")
	l.answered(l.law, yes(990), 2*time.Second)
	_, ok = l.ask(3*time.Second, 0)
	require.False(t, ok)
}

// TestLeasedGivesBack: what is taken ahead and not used goes back to the store.
func TestLeasedGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &far{MemoryStore: new(MemoryStore), rtt: 5 * ms}
		law := GCRA{Rate: PerHour(100_000)}
		fleetOf(t, 3, store, law, func(gateways []*Leased[string]) {
			used := 0
			load(gateways[0], rand.New(rand.NewPCG(1, 1)), 5000, time.Second, func(_ time.Duration, d Decision, _ bool) {
				used += d.Cost
			})
			time.Sleep(time.Second)
			d, err := store.MemoryStore.Take(t.Context(), "k", law, 0)
			require.NoError(t, err)
			require.InDelta(t, 100_000-used, d.Remaining, 100, "an hour brings back 27 a second")

			last := gateways[0].Take("k", 5)
			require.True(t, last.OK)
			gateways[0].Refund("k", last)
			time.Sleep(time.Second)
			after, err := store.MemoryStore.Take(t.Context(), "k", law, 0)
			require.NoError(t, err)
			require.GreaterOrEqual(t, after.Remaining, d.Remaining)

			last = gateways[0].Take("k", 500)
			require.True(t, last.OK)
			time.Sleep(time.Second)
			gateways[0].Refund("k", last)
			time.Sleep(time.Second)
			again, err := store.MemoryStore.Take(t.Context(), "k", law, 0)
			require.NoError(t, err)
			require.GreaterOrEqual(t, again.Remaining, after.Remaining, "a charge is given back")
		})
	})
}

// TestLeasedEnds: when Run ends what is owed has been charged, and each Take asks.
func TestLeasedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &far{MemoryStore: new(MemoryStore), rtt: 5 * ms}
		law := GCRA{Rate: PerHour(100_000)}
		var l *Leased[string]
		fleetOf(t, 3, store, law, func(gateways []*Leased[string]) {
			l = gateways[0]
			require.ErrorIs(t, l.Run(t.Context()), ErrRunning)
			for i := range 50 {
				require.True(t, l.Take(fmt.Sprint(i), 7).OK)
			}
			require.Equal(t, 50, l.Stats().Keys)
			require.Equal(t, "on lease: 7 of 666 not charged yet; the store has not answered yet", l.Explain("3"))
			require.Contains(t, l.Explain("x"), "no lease")
		})
		require.Equal(t, 350, store.gave)
		require.Zero(t, l.Stats().Keys)
		begin := time.Now()
		require.True(t, l.Take("a", 1).OK)
		require.Equal(t, 5*ms, time.Since(begin))
		require.Equal(t, 351, store.gave)
		require.Contains(t, l.Explain("a"), "Run does not run")
	})
}

// TestLeasedAsksForSmallLaws: of a law whose share of 2 % is less than one for each gateway,
// and of those where each Take counts for itself, each Take is one question, and exact.
func TestLeasedAsksForSmallLaws(t *testing.T) {
	for _, law := range []Law{
		GCRA{Rate: PerMinute(5)}, GCRA{Rate: PerSecond(149)}, Window{Rate: PerMinute(5)}, Window{Rate: PerSecond(1000), CountRefused: true},
		GCRA{Rate: PerSecond(1000), MaxWait: time.Second}, InFlight{Max: 1000}, Unlimited{},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &far{MemoryStore: new(MemoryStore)}
			fleetOf(t, 3, store, law, func(gateways []*Leased[string]) {
				_, want := law.Take(0, time.Hour, 1)
				for range 10 {
					for _, l := range gateways {
						require.False(t, l.Take("k", 1).Local)
					}
				}
				require.Equal(t, 30, store.came, "%+v", law)
				if want.Limit == 5 {
					require.Equal(t, 5, store.gave)
				}
				require.Zero(t, gateways[0].Stats().Keys)
			})
		})
	}
}

// TestLeasedIsBounded: with more keys than Max leases come and go, no charge is lost, and what
// finds no place is asked for.
func TestLeasedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &far{MemoryStore: new(MemoryStore), rtt: 5 * ms}
		l := &Leased[string]{Max: 640, Shared: &Shared[string]{Store: store, Law: GCRA{Rate: PerHour(1000)}, Gateways: func() int { return 2 }}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = l.Run(ctx) })
		synctest.Wait()
		for i := range 5000 {
			require.True(t, l.Take(fmt.Sprint(i), 1).OK)
			if i%50 == 0 {
				time.Sleep(10 * ms)
			}
		}
		require.LessOrEqual(t, l.Stats().Keys, 640)
		require.Greater(t, l.Stats().Keys, 500)
		cancel()
		wg.Wait()
		require.Equal(t, 5000, store.gave)
		require.Equal(t, uint64(5000), l.Stats().Taken)
	})
}

// TestLeasedSurvivesAStall: a store that stalls for a moment makes those keys local that are
// asked for then, no others, and nobody waits for long.
func TestLeasedSurvivesAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &far{MemoryStore: new(MemoryStore), rtt: 5 * ms}
		fleetOf(t, 3, store, GCRA{Rate: PerSecond(3000)}, func(gateways []*Leased[string]) {
			l, locals, slow, no := gateways[0], 0, 0, 0
			l.Shared.OnOutage = func(err error) { t.Errorf("changed: %v", err) }
			go func() {
				time.Sleep(time.Second)
				store.hang = true
				store.down.Store(true)
				time.Sleep(150 * ms)
				store.down.Store(false)
			}()
			load(l, rand.New(rand.NewPCG(1, 1)), 900, 2*time.Second, func(at time.Duration, d Decision, waited bool) {
				if d.Local {
					locals++
				}
				if !d.OK {
					no++
				}
				if waited {
					slow++
				}
			})
			require.Zero(t, no)
			require.Positive(t, locals)
			require.Less(t, locals, 300)
			require.Less(t, slow, 40)
			require.False(t, l.Take("k", 1).Local)
			require.Contains(t, l.Explain("k"), "on lease")
		})
	})
}

// TestLeasedSurvivesHostPanics: none of the host's code ends Run.
func TestLeasedSurvivesHostPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		boom := func() {
			if broken.Load() {
				panic("boom")
			}
		}
		store := &far{MemoryStore: new(MemoryStore), rtt: 5 * ms}
		l := &Leased[string]{Shared: &Shared[string]{
			Store: panicking{store, boom}, Logger: slog.New(slog.DiscardHandler),
			Gateways: func() int { boom(); return 2 }, Key: func(k string) string { boom(); return k },
			LawOf: func(string) Law { boom(); return GCRA{Rate: PerSecond(1000)} }, OnOutage: func(error) { boom() },
		}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { require.ErrorIs(t, l.Run(ctx), context.Canceled) })
		synctest.Wait()
		for range 10 {
			broken.Store(false)
			require.True(t, l.Take("k", 1).OK)
			store.down.Store(true)
			broken.Store(true)
			time.Sleep(time.Second)
			store.down.Store(false)
			broken.Store(false)
			require.True(t, l.Take("k", 1).OK)
			time.Sleep(5 * time.Second)
			require.Contains(t, l.Explain("k"), "on lease")
		}
		cancel()
		wg.Wait()
	})
}

type panicking struct {
	Store
	boom func()
}

func (p panicking) Take(ctx context.Context, key string, law Law, n int) (Decision, error) {
	p.boom()
	return p.Store.Take(ctx, key, law, n)
}

// TestLeasedFollowsTheFleet: with other gateways, or another law, a lease is of another size.
func TestLeasedFollowsTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &far{MemoryStore: new(MemoryStore), rtt: 5 * ms}
		var n, rate atomic.Int64
		n.Store(2)
		rate.Store(1000)
		l := &Leased[string]{Ahead: 0.1, Shared: &Shared[string]{
			Store: store, Gateways: func() int { return int(n.Load()) }, LawOf: func(string) Law { return &GCRA{Rate: PerSecond(int(rate.Load()))} },
		}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = l.Run(ctx) })
		synctest.Wait()
		said := func(want string) {
			t.Helper()
			require.True(t, l.Take("k", 1).OK)
			require.Contains(t, l.Explain("k"), want)
			time.Sleep(200 * ms)
		}
		said("1 of 50 not charged")
		n.Store(10)
		said("1 of 50 not charged")
		said("1 of 10 not charged")
		rate.Store(2000)
		said("1 of 20 not charged")
		rate.Store(50) // each is asked for
		require.True(t, l.Take("k", 1).OK)
		cancel()
		wg.Wait()
		require.Equal(t, 5, store.gave)
	})
}
