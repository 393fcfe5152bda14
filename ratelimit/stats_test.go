// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"

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
