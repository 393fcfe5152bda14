// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestEvents(t *testing.T) {
	var log []string
	var p *balance.Pool
	p = &balance.Pool{Name: "web", OnEvent: func(e balance.Event) {
		log = append(log, fmt.Sprintf("%s %s: %s->%s %s", e.Server, e.Kind, e.From, e.To, e.Reason))
		if e.To == balance.StateDown { // events may change things: those come later
			p.Server("b").SetAdmin(balance.Drain, "b goes with a")
		}
	}}
	require.NoError(t, p.Set(endpoints(2)...))
	a := p.Server("a")
	a.Report(balance.Check, balance.Down, "connect refused, 3 of 3")
	a.Report(balance.Check, balance.Down, "still") // no news
	a.Report(balance.Check, balance.Up, "")
	require.NoError(t, p.Set(endpoints(1)...))
	require.Equal(t, []string{
		"a joined: left->up ",
		"b joined: left->up ",
		"a state changed: up->down check says down: connect refused, 3 of 3",
		"b state changed: up->drain drain: b goes with a",
		"a state changed: down->up ",
		"b left: drain->left left the set",
	}, log)
}

func TestEventAsLine(t *testing.T) {
	p := &balance.Pool{Name: "web"}
	require.NoError(t, p.Set(endpoints(1)...))
	for want, e := range map[string]balance.Event{
		"source failed: pool web: no such host":                             {Kind: balance.SourceFailed, Pool: p, Reason: "no such host"},
		"state changed: pool web: server a: up to down: check says down: x": {Kind: balance.StateChanged, Pool: p, Server: p.Server("a"), To: balance.StateDown, Reason: "check says down: x"},
		"joined: server a: up":                                              {Kind: balance.Joined, Pool: new(balance.Pool), Server: p.Server("a"), From: balance.StateLeft},
		"left: pool web: server a: was drain: left the set":                 {Kind: balance.Left, Pool: p, Server: p.Server("a"), From: balance.StateDrain, To: balance.StateLeft, Reason: "left the set"},
		"panic ended": {Kind: balance.PanicEnded},
	} {
		require.Equal(t, want, e.String())
	}
}

func TestExplain(t *testing.T) {
	p := &balance.Pool{}
	eps := endpoints(6)
	eps[2].MaxConns = 1
	eps[3].Weight = -1
	eps[5].Tier = 1
	require.NoError(t, p.Set(eps...))
	p.Server("a").Report(balance.Check, balance.Down, "connect refused, 3 of 3")
	p.Server("a").Report(balance.Agent, balance.Down, "")
	p.Server("b").SetAdmin(balance.Drain, "deploy 42")
	acquire(t, p, balance.Request{Prefer: "c"})
	var lines []string
	for _, e := range p.Explain() {
		lines = append(lines, e.String())
	}
	require.Equal(t, []string{
		"a: not used: check says down: connect refused, 3 of 3; agent says down",
		"b: not used: drain: deploy 42",
		"c: used: at its limit: 1 of 1",
		"d: not used: no weight: persistent traffic only",
		"e: used",
		`f: not used: spare: others carry the load (tier 1, zone "")`,
	}, lines)
}

// TestSincePerCause has several at once say what they think of a server.
func TestSincePerCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, begin := &balance.Pool{}, time.Now()
		require.NoError(t, p.Set(endpoints(1)...))
		a := p.Server("a")
		says := func() string {
			e := p.Explain()[0]
			lines := []string{fmt.Sprintf("%v %v: %s", e.State, e.Since.Sub(begin), e.Reason)}
			if !e.Operator.Since.IsZero() {
				lines = append(lines, fmt.Sprintf("operator %v: %s %v", e.Operator.Admin, e.Operator.Reason, e.Operator.Since.Sub(begin)))
			}
			for _, r := range e.Reports {
				lines = append(lines, fmt.Sprint(r, " ", r.Since.Sub(begin)))
			}
			return strings.Join(lines, "\n")
		}
		require.Equal(t, "up 0s: ", says())
		for _, step := range []struct {
			does func()
			want string
		}{
			{func() { a.Report(balance.Check, balance.Down, "refused") }, "down 1s: check says down: refused\ncheck says down: refused 1s"},
			{func() { a.Report(balance.Discovery, balance.Down, "not ready") },
				"down 1s: check says down: refused; discovery says down: not ready\ncheck says down: refused 1s\ndiscovery says down: not ready 2s"},
			{func() { a.Report(balance.Check, balance.Down, "timeout") },
				"down 1s: check says down: timeout; discovery says down: not ready\ncheck says down: timeout 1s\ndiscovery says down: not ready 2s"},
			{func() { a.SetAdmin(balance.Drain, "deploy") },
				"down 1s: check says down: timeout; discovery says down: not ready\noperator drain: deploy 4s\ncheck says down: timeout 1s\ndiscovery says down: not ready 2s"},
			{func() { a.Report(balance.Check, balance.Up, "passed") },
				"down 1s: discovery says down: not ready\noperator drain: deploy 4s\ncheck says up: passed 5s\ndiscovery says down: not ready 2s"},
			{func() { a.Report(balance.Discovery, balance.Up, "") },
				"drain 6s: drain: deploy\noperator drain: deploy 4s\ncheck says up: passed 5s\ndiscovery says up 6s"},
			{func() { a.SetAdmin(balance.Drain, "deploy 42") },
				"drain 6s: drain: deploy 42\noperator drain: deploy 42 4s\ncheck says up: passed 5s\ndiscovery says up 6s"},
			{func() { a.SetAdmin(balance.Ready, "") },
				"up 8s: \noperator ready:  8s\ncheck says up: passed 5s\ndiscovery says up 6s"},
			{func() {
				l := acquire(t, p, balance.Request{})
				require.NoError(t, p.Set(endpoints(2)[1]))
				require.NoError(t, p.Set(endpoints(1)...))
				l.Done(balance.Outcome{})
			}, "up 9s: "}, // forgotten
		} {
			time.Sleep(time.Second)
			step.does()
			require.Equal(t, step.want, says())
		}
	})
}

func TestStats(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	require.NoError(t, p.Set(endpoints(2)...))
	for i := range 100 {
		o := balance.Outcome{Class: balance.OK, Latency: time.Duration(i+1) * time.Millisecond}
		if i%10 == 0 {
			o.Class = balance.Reset
		}
		acquire(t, p, balance.Request{}).Done(o)
	}
	open := acquire(t, p, balance.Request{})
	st := p.Stats()
	require.EqualValues(t, 101, st.Picks)
	require.Equal(t, 1, st.InFlight)
	require.EqualValues(t, 90, st.Outcomes[balance.OK])
	require.EqualValues(t, 10, st.Outcomes[balance.Reset])
	require.EqualValues(t, 10, st.Outcomes.Failed())
	require.EqualValues(t, 100, st.Latency.Count())
	require.Equal(t, 5050*time.Millisecond, st.Latency.Sum)
	for q, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		got := st.Latency.Quantile(q).Seconds() * 1000
		require.GreaterOrEqual(t, got, want, "quantile %v", q)
		require.LessOrEqual(t, got, want*1.26, "quantile %v", q)
	}
	// Figures of servers that left stay in the sum.
	open.Done(balance.Outcome{Class: balance.OK})
	require.NoError(t, p.Set())
	require.NoError(t, p.Set())
	require.EqualValues(t, 101, p.Stats().Outcomes.Total())
	require.EqualValues(t, 100, p.Stats().Latency.Count())
}

func TestBuckets(t *testing.T) {
	var h balance.Histogram
	var last time.Duration
	for end := range h.Buckets() {
		require.Greater(t, end, last)
		if last > 4*time.Microsecond {
			require.LessOrEqual(t, float64(end), 1.25*float64(last)+1) // a nanosecond of rounding
		}
		last = end
	}
	require.Greater(t, last, 2*time.Minute)
	require.Zero(t, h.Quantile(0.5))
}

func TestBoundsOfBuckets(t *testing.T) {
	bounds := map[time.Duration]bool{}
	var all []time.Duration
	for end := range new(balance.Histogram).Buckets() {
		bounds[end] = true
		all = append(all, end)
	}
	for d := 64 * time.Second; d > 4*time.Microsecond; d /= 2 {
		require.True(t, bounds[d.Truncate(1)] || bounds[d+1], "%v is a power of two of a second", d)
	}
	p := &balance.Pool{}
	require.NoError(t, p.Set(endpoints(1)...))
	for i, end := range all[:len(all)-1] {
		for _, d := range []time.Duration{end - 1, end} {
			p.ClearStats()
			acquire(t, p, balance.Request{}).Done(balance.Outcome{Class: balance.OK, Latency: d})
			want := all[i]
			if d == end {
				want = all[i+1]
			}
			latency := p.Stats().Latency
			require.Equal(t, want, latency.Quantile(1), "%v", d)
		}
	}
	for _, d := range []time.Duration{1, math.MaxInt64 - 1, math.MaxInt64} {
		p.ClearStats()
		acquire(t, p, balance.Request{}).Done(balance.Outcome{Class: balance.OK, Latency: d})
		latency := p.Stats().Latency
		require.EqualValues(t, 1, latency.Count(), "%d", d)
	}
}

func TestBudget(t *testing.T) {
	p := &balance.Pool{}
	require.NoError(t, p.Set(endpoints(1)...))
	retries := func() (n int) {
		var all []balance.RetryPermit
		for {
			r, ok := p.TryRetry()
			if !ok {
				break
			}
			all = append(all, r)
		}
		require.Equal(t, len(all), p.Stats().Retries)
		for _, r := range all {
			r.Done()
		}
		return len(all)
	}
	require.Equal(t, 3, retries(), "the minimum")
	for range 50 {
		acquire(t, p, balance.Request{})
	}
	require.Equal(t, 10, retries(), "a fifth of what goes on")
	require.Zero(t, p.Stats().Retries)
	balance.RetryPermit{}.Done()
	none := &balance.Pool{Budget: balance.Budget{Share: -1, Min: -1}}
	_, ok := none.TryRetry()
	require.False(t, ok)
}

// TestDayOfFlapping has a server that goes down and up each minute for a day.
func TestDayOfFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int64
		p := &balance.Pool{Policy: balance.RoundRobin{}, SlowStart: balance.SlowStart{Window: 20 * time.Second},
			OnEvent: func(balance.Event) { changes.Add(1) }}
		require.NoError(t, p.Set(endpoints(3)...))
		b := p.Server("b")
		for range 24 * 60 {
			b.Report(balance.Check, balance.Down, "refused")
			require.NotContains(t, picks(t, p, 12), "b")
			time.Sleep(30 * time.Second)
			b.Report(balance.Check, balance.Up, "")
			time.Sleep(30 * time.Second)
			synctest.Wait()
			require.Equal(t, 4, strings.Count(picks(t, p, 12), "b"))
		}
		require.EqualValues(t, 3+2+3*24*60, changes.Load()) // joined; two warm up from the start; down, warming, up
	})
}
