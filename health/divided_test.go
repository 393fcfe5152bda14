// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// boards is a Board that can be cut off.
type boards struct {
	MemoryBoard
	mode atomic.Int32 // 1 fails, 2 hangs, 3 panics
}

func (b *boards) way(ctx context.Context) error {
	switch b.mode.Load() {
	case 1:
		return errors.New("away")
	case 2:
		<-ctx.Done()
		return ctx.Err()
	case 3:
		panic("boom")
	}
	return nil
}

func (b *boards) Tell(ctx context.Context, server string, t Told) error {
	if err := b.way(ctx); err != nil {
		return err
	}
	return b.MemoryBoard.Tell(ctx, server, t)
}

func (b *boards) All(ctx context.Context, span time.Duration) (map[string]Told, error) {
	if err := b.way(ctx); err != nil {
		return nil, err
	}
	return b.MemoryBoard.All(ctx, span)
}

// A watchers is a fleet of gateways that check the same servers.
type watchers struct {
	gateways *balance.Pool
	pools    []*balance.Pool
	board    boards
	probes   atomic.Int64
	mu       sync.Mutex
	ill      map[string]bool
	stops    []context.CancelFunc
}

func watch30(t *testing.T, n int, run *sync.WaitGroup) *watchers {
	w := &watchers{gateways: &balance.Pool{}, ill: map[string]bool{}}
	var eps []balance.Endpoint
	for i := range n {
		eps = append(eps, balance.Endpoint{Name: fmt.Sprint("gw", i), Addr: "in.memory:1"})
	}
	require.NoError(t, w.gateways.Set(eps...))
	var servers []balance.Endpoint
	for i := range 30 {
		servers = append(servers, balance.Endpoint{Name: fmt.Sprint("s", i), Addr: "in.memory:1"})
	}
	quiet := slog.New(slog.DiscardHandler)
	for i := range n {
		pool := &balance.Pool{}
		require.NoError(t, pool.Set(servers...))
		w.pools = append(w.pools, pool)
		ctx, cancel := context.WithCancel(t.Context())
		w.stops = append(w.stops, cancel)
		c := &Checker{Pools: []*balance.Pool{pool}, Logger: quiet, Jitter: 0.1, Seed: uint64(i + 1), Probe: &Divided{
			Of: Func(w.probe), Share: &balance.Share{Of: w.gateways, Self: fmt.Sprint("gw", i)}, Board: &w.board, Logger: quiet,
		}}
		run.Go(func() { require.ErrorIs(t, c.Run(ctx), context.Canceled) })
	}
	return w
}

func (w *watchers) probe(_ context.Context, e balance.Endpoint) error {
	w.probes.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ill[e.Name] {
		return errors.New("ill")
	}
	return nil
}

func (w *watchers) set(name string, ill bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ill[name] = ill
}

// in10s returns how many probes there were for each server in an interval of 2 s.
func (w *watchers) in10s() float64 {
	before := w.probes.Load()
	time.Sleep(10 * time.Second)
	return float64(w.probes.Load()-before) / 30 / 5
}

// all reports whether all gateways but the first few find the server in a state.
func (w *watchers) all(name string, s balance.State, but int) bool {
	for _, p := range w.pools[but:] {
		if p.Server(name).State() != s {
			return false
		}
	}
	return true
}

// TestProbesAreDivided has ten gateways and thirty servers. Each is probed about twice in an interval,
// and all gateways know what is found; they also do when gateways or the board go.
func TestProbesAreDivided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var run sync.WaitGroup
		w := watch30(t, 10, &run)
		time.Sleep(10 * time.Second)
		require.InDelta(t, 2, w.in10s(), 0.5)

		w.set("s7", true)
		time.Sleep(10 * time.Second)
		require.True(t, w.all("s7", balance.StateDown, 0))
		require.True(t, w.all("s8", balance.StateUp, 0))
		w.set("s7", false)
		time.Sleep(8 * time.Second)
		require.True(t, w.all("s7", balance.StateUp, 0))

		for mode := range int32(3) {
			w.board.mode.Store(mode + 1)
			time.Sleep(5 * time.Second)
			require.InDelta(t, 10, w.in10s(), 0.5, "each for itself")
			require.True(t, w.all("s8", balance.StateUp, 0))
			w.set("s8", true)
			time.Sleep(8 * time.Second)
			require.True(t, w.all("s8", balance.StateDown, 0))
			w.set("s8", false)
			w.board.mode.Store(0)
			time.Sleep(10 * time.Second)
			require.InDelta(t, 2, w.in10s(), 0.6)
			require.True(t, w.all("s8", balance.StateUp, 0))
		}

		// Half of the gateways go, and at first nobody has heard of it.
		for _, stop := range w.stops[:5] {
			stop()
		}
		w.set("s9", true)
		time.Sleep(12 * time.Second)
		for i := range 30 {
			name := fmt.Sprint("s", i)
			if name != "s9" {
				require.True(t, w.all(name, balance.StateUp, 5), name)
			}
		}
		require.True(t, w.all("s9", balance.StateDown, 5))
		for _, stop := range w.stops {
			stop()
		}
		run.Wait()
	})
}

// TestToldCountsOnce: what one gateway has found once takes no server down that is
// checked thrice.
func TestToldCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateways := &balance.Pool{}
		require.NoError(t, gateways.Set(balance.Endpoint{Name: "a", Addr: "in.memory:1"}, balance.Endpoint{Name: "b", Addr: "in.memory:1"}))
		board, probes := new(MemoryBoard), 0
		d := &Divided{
			Each: 1, Board: board, Share: &balance.Share{Of: gateways, Self: "a"},
			Of: Func(func(context.Context, balance.Endpoint) error { probes++; return nil }),
		}
		e := balance.Endpoint{Name: "s0"}
		for i := 1; d.mine(e.Name); i++ {
			e.Name = fmt.Sprint("s", i)
		}
		require.NoError(t, board.Tell(t.Context(), e.Name, Told{ID: 1, Code: CodeRefused, Text: "connect refused", By: "b"}))
		err := d.Probe(t.Context(), e)
		require.EqualError(t, err, "b: connect refused")
		require.Equal(t, CodeRefused, CodeOf(err))
		require.Zero(t, probes)
		require.NoError(t, d.Probe(t.Context(), e), "by its own probe")
		require.Equal(t, 1, probes)
		time.Sleep(time.Minute)
		require.NoError(t, d.Probe(t.Context(), e))
		require.Equal(t, 2, probes)
	})
}
