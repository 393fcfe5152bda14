// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

var ctx = context.Background()

// endpoints returns n endpoints named a, b, c, ...
func endpoints(n int) []balance.Endpoint {
	eps := make([]balance.Endpoint, n)
	for i := range eps {
		eps[i] = balance.Endpoint{Name: string(rune('a' + i)), Addr: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)}
	}
	return eps
}

// picks acquires and gives back n times and returns the names.
func picks(t testing.TB, p *balance.Pool, n int) string {
	t.Helper()
	var names string
	for range n {
		l, err := p.Acquire(ctx, balance.Request{})
		require.NoError(t, err)
		names += l.Server().Name()
		l.Done(balance.Outcome{})
	}
	return names
}

// acquire returns a lease that must be had at once.
func acquire(t testing.TB, p *balance.Pool, req balance.Request) balance.Lease {
	t.Helper()
	gone, cancel := context.WithCancel(ctx)
	cancel() // need not wait, so it must succeed
	l, err := p.Acquire(gone, req)
	require.NoError(t, err)
	return l
}

func TestSet(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	require.NoError(t, p.Set(endpoints(3)...))
	b := p.Server("b")
	lease := acquire(t, p, balance.Request{Prefer: "b"})
	require.Equal(t, 1, b.InFlight())

	// b stays: it keeps its handle and its lease; c leaves, d comes.
	require.NoError(t, p.Set(
		balance.Endpoint{Name: "b", Addr: "10.0.0.9:80", Weight: 2},
		balance.Endpoint{Name: "d", Addr: "10.0.0.4:80"},
	))
	require.Same(t, b, p.Server("b"))
	require.Equal(t, "10.0.0.9:80", b.Addr())
	require.Equal(t, 1, b.InFlight())
	require.Nil(t, p.Server("c"))
	require.Equal(t, 2, p.Usable())
	var names []string
	for s := range p.All() {
		names = append(names, s.Name())
	}
	require.Equal(t, []string{"b", "d"}, names)

	// b leaves with work in flight and comes back before it is done.
	b.Report(balance.Check, balance.Down, "refused")
	require.NoError(t, p.Set())
	require.Equal(t, balance.StateLeft, b.State())
	_, err := p.Acquire(ctx, balance.Request{})
	require.ErrorIs(t, err, balance.ErrNoServer)
	require.NoError(t, p.Set(endpoints(2)...))
	require.Same(t, b, p.Server("b"))
	require.Equal(t, 1, b.InFlight(), "takes up where it was")
	require.Equal(t, balance.StateUp, b.State(), "nobody has said anything yet")
	lease.Done(balance.Outcome{})
	require.Equal(t, 0, b.InFlight())
	require.Panics(t, func() { lease.Done(balance.Outcome{}) })
}

func TestSetRefuses(t *testing.T) {
	good := balance.Endpoint{Name: "a", Addr: "10.0.0.1:80"}
	with := func(f func(*balance.Endpoint)) []balance.Endpoint {
		e := balance.Endpoint{Name: "b", Addr: "10.0.0.2:80"}
		f(&e)
		return []balance.Endpoint{good, e}
	}
	for _, test := range []struct {
		name  string
		set   []balance.Endpoint
		field string
		value any
	}{
		{"duplicate name", []balance.Endpoint{good, good}, "Endpoints[1].Name", "a"},
		{"address used as name twice", []balance.Endpoint{{Addr: "h:1"}, {Addr: "h:1"}}, "Endpoints[1].Name", "h:1"},
		{"no address", with(func(e *balance.Endpoint) { e.Addr = "" }), "Endpoints[1].Addr", ""},
		{"no port", with(func(e *balance.Endpoint) { e.Addr = "10.0.0.2" }), "Endpoints[1].Addr", "10.0.0.2"},
		{"no path", with(func(e *balance.Endpoint) { e.Addr = "unix:" }), "Endpoints[1].Addr", "unix:"},
		{"negative floor", with(func(e *balance.Endpoint) { e.MinConns = -1 }), "Endpoints[1].MinConns", -1},
		{"floor above limit", with(func(e *balance.Endpoint) { e.MinConns, e.MaxConns = 5, 4 }), "Endpoints[1].MinConns", 5},
		{"negative tier", with(func(e *balance.Endpoint) { e.Tier = -2 }), "Endpoints[1].Tier", -2},
		{"weight", with(func(e *balance.Endpoint) { e.Weight = 70000 }), "Endpoints[1].Weight", 70000},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &balance.Pool{Policy: balance.RoundRobin{}}
			require.NoError(t, p.Set(endpoints(3)...))
			err := p.Set(test.set...)
			var ce *penstock.ConfigError
			require.True(t, errors.As(err, &ce), "%v", err)
			require.Equal(t, test.field, ce.Field)
			require.Equal(t, test.value, ce.Value)
			require.Equal(t, "abc", picks(t, p, 3), "the old set stays in force")
		})
	}
	p := &balance.Pool{Panic: 2}
	require.ErrorContains(t, p.Set(good), "Pool.Panic: 2")
}

func TestZeroPool(t *testing.T) {
	var p balance.Pool
	_, err := p.Acquire(ctx, balance.Request{})
	require.ErrorIs(t, err, balance.ErrNoServer)
	require.Zero(t, p.Usable())
	require.Nil(t, p.Server("a"))
	require.Empty(t, slices.Collect(p.All()))
	retry, ok := p.TryRetry()
	require.True(t, ok)
	retry.Done()
}

func TestState(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	require.NoError(t, p.Set(endpoints(2)...))
	a := p.Server("a")
	serves := func(want string) {
		t.Helper()
		require.Equal(t, want, picks(t, p, 2))
	}
	serves("ab")
	a.Report(balance.Check, balance.Down, "connect refused, 3 of 3")
	require.Equal(t, balance.StateDown, a.State())
	serves("bb")
	a.Report(balance.Outlier, balance.Down, "ejected")
	a.Report(balance.Check, balance.Up, "")
	serves("bb") // one cause is enough
	a.Report(balance.Outlier, balance.Up, "")
	serves("ab")
	a.SetAdmin(balance.Drain, "deploy")
	serves("bb")
	l := acquire(t, p, balance.Request{Prefer: "a"})
	require.Equal(t, "a", l.Server().Name())
	require.True(t, l.Preferred(), "drain keeps persistent traffic")
	l.Done(balance.Outcome{})
	a.SetAdmin(balance.Maint, "")
	l = acquire(t, p, balance.Request{Prefer: "a"})
	require.Equal(t, "b", l.Server().Name())
	require.False(t, l.Preferred())
	l.Done(balance.Outcome{})
	p.Server("b").Report(balance.HostReporter, balance.Stopping, "")
	_, err := p.Acquire(ctx, balance.Request{})
	require.ErrorIs(t, err, balance.ErrNoServer)
	a.SetAdmin(balance.Ready, "")
	serves("aa")
	require.NoError(t, a.SetWeight(0))
	require.Equal(t, balance.StateUnweighted, a.State())
	require.Zero(t, p.Usable())
}

func TestAvoid(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	require.NoError(t, p.Set(endpoints(6)...))
	var req balance.Request
	seen := make(map[string]bool)
	for range 6 {
		l := acquire(t, p, req)
		require.False(t, seen[l.Server().Name()], "tried already")
		seen[l.Server().Name()] = true
		req.Avoid(l.Server())
		l.Done(balance.Outcome{Class: balance.ConnectFailed})
	}
	_, err := p.Acquire(ctx, req)
	require.ErrorIs(t, err, balance.ErrNoServer)
}

func TestMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{Policy: balance.RoundRobin{}, Queue: balance.Queue{Size: 1, Timeout: time.Second}}
		require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1", MaxConns: 2}))
		first, second := acquire(t, p, balance.Request{}), acquire(t, p, balance.Request{})

		start := time.Now()
		_, err := p.Acquire(ctx, balance.Request{})
		require.ErrorIs(t, err, balance.ErrQueueTimeout)
		require.Equal(t, time.Second, time.Since(start))

		var wg sync.WaitGroup
		wg.Go(func() {
			l, err := p.Acquire(ctx, balance.Request{})
			require.NoError(t, err)
			require.True(t, l.Queued())
			l.Done(balance.Outcome{})
		})
		synctest.Wait()
		_, err = p.Acquire(ctx, balance.Request{})
		require.ErrorIs(t, err, balance.ErrQueueFull)
		first.Done(balance.Outcome{})
		wg.Wait()
		second.Done(balance.Outcome{})
		require.Zero(t, p.Server("a:1").InFlight())
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{}
		require.NoError(t, p.Set(endpoints(2)...))
		a := p.Server("a")
		l := acquire(t, p, balance.Request{Prefer: "a"})
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, a.Drain(short), context.DeadlineExceeded)
		time.AfterFunc(time.Minute, func() { l.Done(balance.Outcome{}) })
		start := time.Now()
		require.NoError(t, a.Drain(ctx))
		require.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, a.Drain(ctx), "nothing in flight")
	})
}

type conn struct{ cuts []string }

func (c *conn) Cut(live bool, reason string) { c.cuts = append(c.cuts, fmt.Sprint(live, " ", reason)) }

func TestCut(t *testing.T) {
	p := &balance.Pool{}
	require.NoError(t, p.Set(endpoints(1)...))
	a, c := p.Server("a"), new(conn)
	a.Attach(c)
	a.SetAdmin(balance.Drain, "")
	require.Empty(t, c.cuts, "drain lets connections be")
	a.Report(balance.Check, balance.Down, "refused")
	a.Cut(true, "deadline")
	require.Equal(t, []string{"false check says down: refused", "true deadline"}, c.cuts)
	late := new(conn)
	a.Attach(late)
	require.Equal(t, []string{"false server is down"}, late.cuts)
	a.Detach(c)
	a.Cut(true, "again")
	require.Len(t, c.cuts, 2)
}

func TestRoundRobin(t *testing.T) {
	for _, test := range []struct {
		weights []int
		want    string
	}{
		{[]int{1, 1, 1}, "abcabc"},
		{[]int{3, 1}, "aabaaaba"},
		{[]int{5, 1, 1}, "abaaaca"},
		{[]int{2, 4}, "babbab"},
	} {
		p := &balance.Pool{Policy: balance.RoundRobin{}}
		eps := endpoints(len(test.weights))
		for i, w := range test.weights {
			eps[i].Weight = w
		}
		require.NoError(t, p.Set(eps...))
		require.Equal(t, test.want, picks(t, p, len(test.want)))
	}
}

func TestLeastConn(t *testing.T) {
	p := &balance.Pool{Policy: balance.LeastConn{}}
	eps := endpoints(3)
	eps[0].Weight = 3
	require.NoError(t, p.Set(eps...))
	for range 50 {
		acquire(t, p, balance.Request{})
	}
	require.Equal(t, []int{30, 10, 10}, []int{p.Server("a").InFlight(), p.Server("b").InFlight(), p.Server("c").InFlight()})
}
