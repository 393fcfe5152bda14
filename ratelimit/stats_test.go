// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStatsOfEachKindOfLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &Limiter{Law: GCRA{Rate: PerSecond(2)}}
		for range 3 {
			one.Take(1)
		}
		one.Take(0) // takes nothing
		require.Equal(t, Stats{Taken: 2, Refused: 1}, one.Stats())
		none := &Limiter{}
		none.Take(1)
		require.Equal(t, Stats{Refused: 1}, none.Stats())

		store := &away{}
		shared := &Shared[string]{Store: store, Law: GCRA{Rate: PerSecond(2)}, Logger: slog.New(slog.DiscardHandler)}
		for range 3 {
			shared.Take("a", 1)
		}
		store.err = errors.New("gone")
		shared.Take("a", 1)
		require.Equal(t, Stats{Taken: 3, Refused: 1, Keys: 1, Local: 1, Asked: 4}, shared.Stats())
	})
}

func TestStatsCountKeysThatAreKept(t *testing.T) {
	l := &Keyed[string]{Law: GCRA{Rate: PerSecond(1)}, Max: 64}
	require.Equal(t, Stats{}, l.Stats(), "asking makes no table")
	require.Nil(t, l.tab)
	for i := range 1000 {
		l.Take(fmt.Sprint(i), 1)
	}
	kept := 0
	for range l.All() {
		kept++
	}
	st := l.Stats()
	require.Equal(t, kept, st.Keys)
	require.EqualValues(t, 1000, st.Taken, "whatever lane they are in")
	for k := range l.All() {
		l.Forget(k)
	}
	require.Zero(t, l.Stats().Keys)
}

func TestStatsOfPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Concurrency{Max: 1, MaxQueue: 2, MaxWait: time.Second}
		require.Equal(t, Stats{Places: 1}, c.Stats())
		require.NoError(t, c.Acquire(t.Context()))
		require.False(t, c.TryAcquire())
		done := make(chan error, 2)
		ctx, leave := context.WithCancel(t.Context())
		go func() { done <- c.Acquire(t.Context()) }()
		go func() { done <- c.Acquire(ctx) }()
		synctest.Wait()
		require.ErrorIs(t, c.Acquire(t.Context()), ErrRefused, "the line is full")
		require.Equal(t, Stats{Taken: 1, Refused: 2, Held: 1, Places: 1, Queued: 2}, c.Stats())
		leave()
		require.ErrorIs(t, <-done, context.Canceled)
		require.EqualValues(t, 2, c.Stats().Refused, "who leaves was not refused")
		require.ErrorIs(t, <-done, ErrRefused)
		require.EqualValues(t, 3, c.Stats().Refused, "MaxWait has passed")
		go func() { done <- c.Acquire(t.Context()) }()
		synctest.Wait()
		c.Release(0)
		require.NoError(t, <-done)
		require.Equal(t, Stats{Taken: 2, Refused: 3, Held: 1, Places: 1}, c.Stats())
		c.SetMax(-1)
		require.Zero(t, c.Stats().Places)

		a := &Adaptive{Initial: 2}
		require.Equal(t, Stats{Places: 2}, a.Stats())
		require.NoError(t, a.Acquire(t.Context()))
		require.True(t, a.TryAcquire())
		require.ErrorIs(t, a.Acquire(t.Context()), ErrRefused)
		require.Equal(t, Stats{Taken: 2, Refused: 1, Held: 2, Places: 2}, a.Stats())
	})
}

func TestStatsOfBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Bandwidth{BytesPerSecond: 1000, BurstBytes: 100}
		require.Zero(t, b.Reserve(100))
		require.NotZero(t, b.Reserve(50))
		b.Unreserve(50)
		require.Equal(t, Stats{Bytes: 150, Delayed: 50}, b.Stats())
		b.SetRate(0)
		b.Reserve(1000)
		require.Equal(t, Stats{Bytes: 150, Delayed: 50}, b.Stats(), "without a limit there is no turn")
	})
}
