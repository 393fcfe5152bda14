// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The states of an outage, as a story.
func TestOutage(t *testing.T) {
	o := outage{limit: 3, pause: time.Second}
	require.True(t, o.ask(0))
	require.False(t, o.missed(0, 100*ms))
	require.False(t, o.missed(10*ms, 101*ms), "it was under way: the same failure")
	require.False(t, o.missed(99*ms, 102*ms))
	require.True(t, o.ask(110*ms), "one failure changes nothing")
	require.False(t, o.missed(110*ms, 210*ms))
	require.False(t, o.answered(150*ms))
	for i, at := range []time.Duration{300 * ms, 301 * ms, 302 * ms} {
		require.True(t, o.ask(at))
		require.Equal(t, i == 2, o.missed(at, at), "the third in a row, none but failures between")
	}
	require.False(t, o.answered(302*ms), "it was asked for before")
	require.False(t, o.ask(500*ms))
	require.True(t, o.ask(1302*ms), "one asks")
	require.False(t, o.ask(1303*ms), "and the others do not")
	require.False(t, o.missed(1302*ms, 1400*ms))
	require.False(t, o.ask(2302*ms))
	require.True(t, o.ask(2400*ms))
	require.True(t, o.answered(2400*ms))
	require.True(t, o.ask(2401*ms))
	require.False(t, o.missed(2401*ms, 2402*ms), "it begins anew")
}

// stalls is a store that is slow for a while.
type stalls struct {
	MemoryStore
	until time.Time
}

func (s *stalls) Take(ctx context.Context, key string, law Law, n int) (Decision, error) {
	select {
	case <-ctx.Done():
		return Decision{}, ctx.Err()
	case <-time.After(time.Until(s.until)):
		return s.MemoryStore.Take(ctx, key, law, n)
	}
}

// A store that stalls for a moment, under any number of callers, stays the one
// that decides. Only those that met the stall were decided locally.
func TestSharedSurvivesAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &stalls{until: time.Now().Add(150 * ms)}
		l := &Shared[string]{Store: store, Law: GCRA{Rate: PerHour(1000)}, Logger: slog.New(slog.DiscardHandler),
			OnOutage: func(err error) { t.Errorf("changed: %v", err) }}
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				require.True(t, l.Take("a", 1).Local)
			})
		}
		wg.Wait()
		require.False(t, l.Take("a", 1).Local)
		time.Sleep(100 * ms)
		require.False(t, l.Take("a", 1).Local)
	})
}

func TestSharedFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, n := range []int{-1, 0, 1, 5} {
			store := &away{err: errors.New("gone")}
			l := &Shared[string]{Store: store, Law: GCRA{Rate: PerHour(1000)}, Failures: n, Logger: slog.New(slog.DiscardHandler)}
			for range 20 {
				require.True(t, l.Take("a", 1).Local)
			}
			want := n
			if n <= 0 {
				want = 3
			}
			require.Equal(t, want, store.asked)
		}
	})
}

// Equal laws are one, whichever pointers they are behind.
func TestMemoryStoreKnowsEqualLaws(t *testing.T) {
	ctx := t.Context()
	for _, laws := range [][]Law{
		{&Window{Rate: PerHour(2)}, &Window{Rate: PerHour(2)}, Window{Rate: PerHour(2)}},
		{&GCRA{Rate: PerHour(2)}, &GCRA{Rate: PerHour(2)}, GCRA{Rate: PerHour(2)}},
		{&InFlight{2}, &InFlight{2}, InFlight{2}},
		{Window{Rate: Rate{Count: 2}}, &Window{Rate: PerSecond(2)}, Window{Rate: PerSecond(2)}},
		{GCRA{Rate: PerHour(2)}, &GCRA{Rate: PerHour(2), Burst: 2}, GCRA{Rate: PerHour(2), Burst: 2, MaxWait: -1}},
	} {
		store := &MemoryStore{}
		d, err := store.Take(ctx, "a", laws[0], 2)
		require.NoError(t, err)
		require.True(t, d.OK)
		for _, law := range laws {
			no, err := store.Take(ctx, "a", law, 1)
			require.NoError(t, err)
			require.False(t, no.OK, "%T", law)
		}
		require.NoError(t, store.Refund(ctx, "a", laws[2], d))
		d, err = store.Take(ctx, "a", laws[1], 2)
		require.NoError(t, err)
		require.True(t, d.OK)
	}
	_, err := new(MemoryStore).Take(ctx, "a", listLaw{}, 1)
	require.ErrorIs(t, err, ErrLaw)
	require.ErrorIs(t, new(MemoryStore).Refund(ctx, "a", listLaw{}, Decision{Cost: 1}), ErrLaw)
	_, err = new(MemoryStore).Take(ctx, "a", (*GCRA)(nil), 1)
	require.ErrorIs(t, err, ErrLaw)
	other := &stateLaw{}
	d, err := new(MemoryStore).Take(ctx, "a", other, 1)
	require.NoError(t, err)
	require.True(t, d.OK)
}

type listLaw []int

func (listLaw) Take(int64, time.Duration, int) (int64, Decision)  { return 0, Decision{OK: true} }
func (listLaw) Refund(s int64, _ time.Duration, _ Decision) int64 { return s }

type stateLaw struct {
	listLaw
	_ sync.Mutex // what no law has by value
}

// A host that is still being told that the store is away is told afterwards that it is back,
// though another goroutine has found that out meanwhile.
func TestOutagesAreToldInOrder(t *testing.T) {
	var told []bool
	first := true
	s := &Shared[string]{Law: GCRA{Rate: PerSecond(1)}, Failures: 1, Logger: slog.New(slog.DiscardHandler)}
	s.OnOutage = func(err error) {
		if first {
			first = false
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 21 { // and 20 outages more
					s.heard(later(s.clock.now(), ms), nil)
					s.heard(later(s.clock.now(), 2*ms), errors.New("away"))
				}
				s.heard(later(s.clock.now(), time.Hour), nil)
			}()
			<-done
		}
		told = append(told, err != nil)
	}
	s.heard(0, errors.New("away"))
	require.Greater(t, len(told), 2)
	require.LessOrEqual(t, len(told), 17)
	for i, away := range told {
		require.Equal(t, i%2 == 0, away, "%v", told)
	}
	require.False(t, told[len(told)-1])

	s.OnOutage = func(error) { panic("of the host") }
	s.heard(later(s.clock.now(), 2*time.Hour), errors.New("away"))
	s.OnOutage = func(err error) { told = append(told, err != nil) }
	s.heard(later(s.clock.now(), 3*time.Hour), nil)
	require.False(t, told[len(told)-1], "a panic stops nothing")
	require.Empty(t, s.untold)
}
