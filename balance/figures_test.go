// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestTimeInEachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{}
		require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}))
		s := p.Server("a:1")
		time.Sleep(3 * time.Second)
		s.Report(balance.Check, balance.Down, "no answer")
		time.Sleep(5 * time.Second)
		s.Report(balance.Check, balance.Down, "still no answer")
		s.Report(balance.Check, balance.Up, "")
		s.SetAdmin(balance.Drain, "deploy")
		time.Sleep(time.Second)
		require.Equal(t, balance.StateTimes{
			balance.StateUp: 3 * time.Second, balance.StateDown: 5 * time.Second, balance.StateDrain: time.Second,
		}, s.Stats().InState)
		p.ClearStats()
		require.Equal(t, 5*time.Second, s.Stats().InState[balance.StateDown], "counters are cleared, not the past")
	})
}

func TestPoolCountsWhatWaitsAndFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{Queue: balance.Queue{Size: 1, Timeout: 2 * time.Second}, Budget: balance.Budget{Share: -1, Min: 1}}
		_, err := p.Acquire(t.Context(), balance.Request{})
		require.ErrorIs(t, err, balance.ErrNoServer)
		require.Zero(t, p.Stats().NoServer, "before the first Set there is nothing to count with")
		require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1", MaxConns: 1}))

		held, err := p.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := p.Acquire(t.Context(), balance.Request{})
			done <- err
		}()
		synctest.Wait()
		_, err = p.Acquire(t.Context(), balance.Request{})
		require.ErrorIs(t, err, balance.ErrQueueFull)
		require.ErrorIs(t, <-done, balance.ErrQueueTimeout)

		go func() {
			l, err := p.Acquire(t.Context(), balance.Request{})
			l.Done(balance.Outcome{})
			done <- err
		}()
		time.Sleep(500 * time.Millisecond)
		held.Done(balance.Outcome{})
		require.NoError(t, <-done)

		var again balance.Request
		again.Avoid(p.Server("a:1"))
		_, err = p.Acquire(t.Context(), again)
		require.ErrorIs(t, err, balance.ErrNoServer)

		retry, ok := p.TryRetry()
		require.True(t, ok)
		_, ok = p.TryHedge()
		require.False(t, ok, "one budget for both")
		retry.Done()
		hedge, ok := p.TryHedge()
		require.True(t, ok)
		hedge.Done()

		st := p.Stats()
		require.EqualValues(t, 2, st.Waits.Count(), "the one that was full did not wait")
		require.Equal(t, 2500*time.Millisecond, st.Waits.Sum)
		st.Waits, st.Latency = balance.Histogram{}, balance.Histogram{}
		require.Equal(t, balance.Stats{
			Servers: 1, Usable: 1, Picks: 2, Outcomes: balance.Outcomes{balance.OK: 2},
			Retried: 1, Hedged: 1, OverBudget: 1, NoServer: 1, QueueFull: 1, QueueTimeouts: 1,
		}, st)
		p.ClearStats()
		require.Equal(t, balance.Stats{Servers: 1, Usable: 1}, p.Stats())
	})
}

func TestStatsTellAPanic(t *testing.T) {
	p := &balance.Pool{Panic: 0.6}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}, balance.Endpoint{Addr: "b:1"}))
	require.False(t, p.Stats().Panicking)
	p.Server("a:1").Report(balance.Check, balance.Down, "")
	require.True(t, p.Stats().Panicking)
}
