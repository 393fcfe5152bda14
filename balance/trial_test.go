// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestTrial(t *testing.T) {
	p := &balance.Pool{Queue: balance.Queue{Size: -1}}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "b", Addr: "b:1"}))
	p.Server("a").SetTrial(true)
	var leases []balance.Lease
	count := func() (a int) {
		for range 10 {
			l, err := p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
			leases = append(leases, l)
		}
		return p.Server("a").InFlight()
	}
	require.Equal(t, 1, count())
	p.Server("a").SetTrial(false)
	require.Greater(t, count(), 5, "two choices fill the emptier one")
	for _, l := range leases {
		l.Done(balance.Outcome{})
	}
}

// trialPool returns a pool of one server on trial that had old leases before, and what
// its observer is told.
func trialPool(t *testing.T, old int, queue balance.Queue) (p *balance.Pool, before []balance.Lease, told *[]balance.Outcome) {
	told = new([]balance.Outcome)
	p = &balance.Pool{Queue: queue, OnOutcome: []func(*balance.Server, balance.Outcome){
		func(_ *balance.Server, o balance.Outcome) { *told = append(*told, o) },
	}}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1", MaxConns: 20}))
	for range old {
		before = append(before, lease(t, p))
	}
	p.Server("a").SetTrial(true)
	return p, before, told
}

func lease(t *testing.T, p *balance.Pool) balance.Lease {
	t.Helper()
	l, err := p.Acquire(t.Context(), balance.Request{})
	require.NoError(t, err)
	return l
}

func full(t *testing.T, p *balance.Pool) {
	t.Helper()
	_, err := p.Acquire(t.Context(), balance.Request{})
	require.ErrorIs(t, err, balance.ErrQueueFull)
}

func TestTrialKnowsItsOwnLease(t *testing.T) {
	p, before, told := trialPool(t, 10, balance.Queue{Size: -1})
	first := lease(t, p) // those from before do not stand in the way
	full(t, p)
	before[0].Done(balance.Outcome{Class: balance.Reset})
	require.Equal(t, []balance.Outcome{{Class: balance.Reset, BeforeTrial: true}}, *told)
	full(t, p)
	before[1].Works(0)
	require.Len(t, *told, 1, "only the trial's own lease says that the server works")

	*told = nil
	p.Server("a").SetTrial(false)
	p.Server("a").SetTrial(true)
	second := lease(t, p)
	full(t, p)
	first.Works(0)
	first.Done(balance.Outcome{})
	require.Equal(t, []balance.Outcome{{BeforeTrial: true}}, *told, "it was of another trial")
	full(t, p)

	*told = nil
	second.Done(balance.Outcome{Class: balance.Reset})
	require.Equal(t, []balance.Outcome{{Class: balance.Reset}}, *told)
	lease(t, p).Done(balance.Outcome{})
	p.Server("a").SetTrial(false)
	for _, l := range before[1:] {
		l.Done(balance.Outcome{})
	}
	require.Zero(t, p.Server("a").InFlight())
}

func TestTrialKeepsTheLimit(t *testing.T) {
	p, before, _ := trialPool(t, 20, balance.Queue{Size: -1})
	full(t, p)
	before[0].Done(balance.Outcome{})
	lease(t, p)
	full(t, p)
	require.Equal(t, 20, p.Server("a").InFlight())
}

func TestTrialEndsForALeaseThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, told := trialPool(t, 0, balance.Queue{})
		first := lease(t, p)
		next := make(chan balance.Lease)
		go func() { next <- lease(t, p) }()
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Queued)
		first.Works(200)
		second := <-next
		require.Equal(t, []balance.Outcome{{Status: 200, Early: true}}, *told)
		require.Equal(t, 2, p.Server("a").InFlight())

		first.Works(200) // says it again, but has no place any more
		first.Done(balance.Outcome{})
		require.Equal(t, []balance.Outcome{{Status: 200, Early: true}, {}}, *told)
		go func() { next <- lease(t, p) }()
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Queued, "the second has the place")
		second.Done(balance.Outcome{})
		(<-next).Done(balance.Outcome{})
	})
}

func TestTrialIsExplained(t *testing.T) {
	p, _, _ := trialPool(t, 0, balance.Queue{})
	require.Equal(t, "a: used: on trial: one lease at a time, until its observer has seen how that goes", p.Explain()[0].String())
}
