// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		o      balance.Outcome
		l4, l7 health.Rating
	}{
		{balance.Outcome{Class: balance.OK, Status: 200}, health.Good, health.Good},
		{balance.Outcome{Class: balance.OK, Status: 404}, health.Good, health.Good},
		{balance.Outcome{Class: balance.StatusError, Status: 500}, health.Good, health.Bad},
		{balance.Outcome{Class: balance.StatusError, Status: 501}, health.Good, health.Good},
		{balance.Outcome{Class: balance.StatusError, Status: 505}, health.Good, health.Good},
		{balance.Outcome{Class: balance.ConnectFailed}, health.Bad, health.Bad},
		{balance.Outcome{Class: balance.ConnectTimeout}, health.Bad, health.Bad},
		{balance.Outcome{Class: balance.TLSFailed}, health.Bad, health.Bad},
		{balance.Outcome{Class: balance.Timeout}, health.Good, health.Bad},
		{balance.Outcome{Class: balance.Reset}, health.Good, health.Bad},
		{balance.Outcome{Class: balance.Protocol}, health.Good, health.Bad},
		{balance.Outcome{Class: balance.ClientAborted}, health.Ignored, health.Ignored},
		{balance.Outcome{Class: balance.Canceled}, health.Ignored, health.Ignored},
		{balance.Outcome{Class: balance.Stale}, health.Ignored, health.Ignored},
	} {
		require.Equal(t, tt.l4, health.Layer4(tt.o), "layer 4, %v %d", tt.o.Class, tt.o.Status)
		require.Equal(t, tt.l7, health.Layer7(tt.o), "layer 7, %v %d", tt.o.Class, tt.o.Status)
	}
}

// observed runs a checker over a server whose probes pass, and returns a func
// that sends outcomes to it: x for an error, . for a good one, - for an abort.
func observed(t *testing.T, o health.Observe) (b *backends, s *balance.Server, send func(string)) {
	b = newBackends()
	p := &balance.Pool{}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}))
	c := &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Fast: time.Second, Observe: o}
	p.OnOutcome = []func(*balance.Server, balance.Outcome){c.Observed}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}))
	run(t, c)
	b.after(5 * time.Second)
	b.probed("a:1")
	s = p.Server("a")
	return b, s, func(outcomes string) {
		for _, o := range outcomes {
			class := map[rune]balance.Class{'x': balance.Reset, '.': balance.OK, '-': balance.ClientAborted}[o]
			c.Observed(s, balance.Outcome{Class: class, Err: errors.New("cut")})
		}
		synctest.Wait()
	}
}

func TestObserveFailsAndHastens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, send := observed(t, health.Observe{Errors: 3})
		send("xx.xx-")
		b.after(9 * time.Second)
		require.Empty(t, b.probed("a:1"), "no three in a row")
		send("x")
		b.after(9500 * time.Millisecond)
		b.fail("a:1", refused)
		b.after(11500 * time.Millisecond)
		require.Equal(t, "10s 11s", b.probed("a:1"), "in transition the checks come faster")
		require.False(t, s.Usable(), "one failure seen in traffic and two found make three")
	})
}

func TestObserveActions(t *testing.T) {
	for _, tt := range []struct {
		action health.ErrorAction
		rows   string // outcomes of three rows
		want   []bool // usable after each row
	}{
		{health.FailCheck, "xx", []bool{true, true, false}},
		{health.FastCheck, "xx", []bool{true, true, true}},
		{health.SuddenDeath, "xx", []bool{true, false, false}},
		{health.MarkDown, "xx", []bool{false, false, false}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, s, send := observed(t, health.Observe{Errors: 2, Action: tt.action})
			var got []bool
			for range 3 {
				send(tt.rows)
				got = append(got, s.Usable())
			}
			require.Equal(t, tt.want, got, "action %d", tt.action)
			b.after(5900 * time.Millisecond)
			require.Empty(t, b.probed("a:1"))
			b.after(6 * time.Second)
			require.Equal(t, "6s", b.probed("a:1"), "the next check is at most Fast away")
		})
	}
}

// TestObserveIsPassive checks that a pass found by a probe clears the row.
func TestObserveRowEndsWithAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, send := observed(t, health.Observe{Errors: 3, Action: health.MarkDown})
		send("xx")
		b.after(10500 * time.Millisecond)
		send("xx")
		require.True(t, s.Usable())
		send("x")
		require.False(t, s.Usable())
	})
}

func BenchmarkObserved(b *testing.B) {
	p := pool(b, "a")
	ctx, cancel := context.WithCancel(b.Context())
	c := &health.Checker{Pools: []*balance.Pool{p}, Probe: health.All{}, Logger: quiet}
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	for {
		if _, ok := c.Status(p.Server("a")); ok {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s := p.Server("a")
	b.ReportAllocs()
	for b.Loop() {
		c.Observed(s, balance.Outcome{Class: balance.OK})
	}
	cancel()
	<-done
}
