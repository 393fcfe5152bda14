// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// away is a store that can be cut off, or hang.
type away struct {
	MemoryStore
	err   error
	hangs bool
	asked int
}

func (a *away) Take(ctx context.Context, key string, law Law, n int) (Decision, error) {
	a.asked++
	if a.hangs {
		<-ctx.Done()
		return Decision{}, ctx.Err()
	}
	if a.err != nil {
		return Decision{}, a.err
	}
	return a.MemoryStore.Take(ctx, key, law, n)
}

func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &away{}
		var said []error
		gateway := func() *Shared[netip.Addr] {
			return &Shared[netip.Addr]{
				Store: store, Law: GCRA{Rate: PerSecond(4)}, Prefix: "ip:",
				Logger: slog.New(slog.DiscardHandler), OnOutage: func(err error) { said = append(said, err) },
			}
		}
		one, two := gateway(), gateway()
		client := netip.MustParseAddr("192.0.2.1")
		require.Equal(t, 1, one.Take(client, 3).Remaining)
		d := two.Take(client, 1)
		require.True(t, d.OK)
		require.False(t, d.Local)
		require.False(t, two.Take(client, 1).OK, "they share one limit")
		two.Refund(client, d)
		require.True(t, one.Take(client, 1).OK)

		gone := errors.New("gone")
		store.err = gone
		d = one.Take(client, 4)
		require.True(t, d.OK, "now each has its own")
		require.True(t, d.Local)
		require.False(t, one.Take(client, 1).OK)
		one.Refund(client, d)
		require.True(t, one.Take(client, 4).OK)
		require.Equal(t, []error{gone}, said)
		asked := store.asked
		for range 100 {
			one.Take(client, 1)
		}
		require.Equal(t, asked, store.asked, "a store that is away is left alone")

		time.Sleep(time.Second)
		store.err, store.hangs = nil, true
		start := time.Now()
		one.Take(client, 1)
		require.Equal(t, 100*ms, time.Since(start))
		one.Take(client, 1)
		require.Equal(t, 100*ms, time.Since(start), "one asks, the others do not wait")

		time.Sleep(2 * time.Second)
		store.hangs = false
		require.False(t, one.Take(client, 1).Local)
		require.Equal(t, []error{gone, nil}, said)

		require.Equal(t, Never, new(Shared[string]).Take("a", 1).Wait)
		alone := Shared[string]{Law: InFlight{Max: 1}}
		require.True(t, alone.Take("a", 1).Local)
		_, err := alone.Wait(t.Context(), "a", 1)
		require.ErrorIs(t, err, ErrRefused)
	})
}

func TestSharedText(t *testing.T) {
	require.Equal(t, "p:a", (&Shared[string]{Prefix: "p:"}).text("a"))
	require.Equal(t, "192.0.2.0/24", (&Shared[netip.Prefix]{}).text(netip.MustParsePrefix("192.0.2.0/24")))
	require.Equal(t, "k7", (&Shared[int]{Key: func(int) string { return "k7" }}).text(7))
}
