// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestClearStats(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	eps := []balance.Endpoint{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1", Zone: "z"}, {Name: "leaves", Addr: "c:1"}, {Name: "stays for its lease", Addr: "d:1"}}
	require.NoError(t, p.Set(eps...))
	z := p.Subset(func(e balance.Endpoint) bool { return e.Zone == "z" })
	use := func() {
		for s := range p.All() {
			l, err := p.Acquire(t.Context(), balance.Request{Prefer: s.Name()})
			require.NoError(t, err)
			l.Done(balance.Outcome{Latency: time.Millisecond})
		}
	}
	use()
	open, err := p.Acquire(t.Context(), balance.Request{Prefer: "stays for its lease"})
	require.NoError(t, err)
	require.NoError(t, p.Set(eps[:2]...))
	require.EqualValues(t, 4, p.Stats().Outcomes.Total(), "those that have left count")

	z.ClearStats()
	require.Zero(t, p.Server("b").Stats().Outcomes.Total())
	require.EqualValues(t, 3, p.Stats().Outcomes.Total(), "a subset is its members")
	p.ClearStats()
	require.Equal(t, balance.Stats{Servers: 2, Usable: 2, InFlight: 1, Picks: 1}, p.Stats(), "what goes on stays")
	open.Done(balance.Outcome{})
	use()
	st := p.Stats()
	require.EqualValues(t, 3, st.Outcomes.Total())
	require.EqualValues(t, 2, st.Latency.Count())
}

// TestClearStatsWhileLeasesEnd is for the race detector.
func TestClearStatsWhileLeasesEnd(t *testing.T) {
	p := &balance.Pool{}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				l, err := p.Acquire(t.Context(), balance.Request{})
				if err != nil {
					t.Error(err)
					return
				}
				l.Done(balance.Outcome{Latency: time.Millisecond})
				p.ClearStats()
			}
		})
	}
	wg.Wait()
	require.Zero(t, p.Stats().Outcomes.Total())
}
