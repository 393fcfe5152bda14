// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// court is an outlier over a pool, and what it said.
type court struct {
	t     *testing.T
	p     *balance.Pool
	o     *health.Outlier
	begin time.Time

	mu   sync.Mutex // guards said
	said []string
}

// try runs o over a pool of the named servers.
func try(t *testing.T, o *health.Outlier, names string) *court {
	return tryPool(t, o, &balance.Pool{}, names)
}

// tryPool runs o over p, with the named servers.
func tryPool(t *testing.T, o *health.Outlier, p *balance.Pool, names string) *court {
	join(t, p, strings.Fields(names)...)
	c := &court{t: t, p: p, o: o, begin: time.Now()}
	o.Pool, o.Logger = c.p, cmp.Or(o.Logger, quiet)
	c.p.OnOutcome = append(c.p.OnOutcome, o.Observe)
	o.OnEjection = func(e health.Ejection) {
		line := fmt.Sprintf("%v %s %v: %s", time.Since(c.begin), e.Server.Name(), e.Kind, e.Reason)
		if e.Kind == health.Ejected {
			line += fmt.Sprintf(" (%v)", e.For)
		}
		c.mu.Lock()
		c.said = append(c.said, line)
		c.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	synctest.Wait()
	return c
}

// send sends outcomes to a server: x is a 503, 5 a 500, r a reset, . is good, - an abort.
func (c *court) send(name, outcomes string) {
	for _, o := range outcomes {
		c.o.Observe(c.p.Server(name), map[rune]balance.Outcome{
			'x': {Class: balance.StatusError, Status: 503},
			'5': {Class: balance.StatusError, Status: 500},
			'r': {Class: balance.Reset},
			'.': {Class: balance.OK},
			'-': {Class: balance.Stale},
		}[o])
	}
	synctest.Wait()
}

// after sleeps until d after the begin, and returns what was said since the last call.
func (c *court) after(d time.Duration) string {
	time.Sleep(d - time.Since(c.begin))
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	said := strings.Join(c.said, "\n")
	c.said = nil
	return said
}

func TestOutlierRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{}, "a b c")
		c.send("a", "xxxx.xxxx-")
		require.Empty(t, c.after(time.Second), "no five in a row")
		c.send("a", "x")
		require.Equal(t, "1s a ejected: 5 errors in a row, last status 503 (30s)", c.after(2*time.Second))
		require.False(t, c.p.Server("a").Usable())

		c.send("a", "....") // what began before
		require.Empty(t, c.after(30*time.Second))
		require.Equal(t, "31s a on trial: time is up", c.after(32*time.Second))
		require.True(t, c.p.Server("a").Usable())
		c.send("a", "-")
		require.Empty(t, c.after(33*time.Second), "an abort decides nothing")
		c.send("a", "r")
		require.Equal(t, "33s a ejected: failed on trial: reset (1m0s)", c.after(34*time.Second))
		require.Equal(t, "1m33s a on trial: time is up", c.after(94*time.Second))
		c.send("a", ".")
		require.Equal(t, "1m34s a returned: well again", c.after(95*time.Second))

		c.send("a", "xxxxx")
		require.Equal(t, "1m35s a ejected: 5 errors in a row, last status 503 (1m30s)", c.after(96*time.Second), "it is not forgotten so soon")
	})
}

// TestOutlierTrialIsOneRequest shows that a server on trial gets one lease.
func TestOutlierTrialIsOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{}, "a b")
		c.send("a", "xxxxx")
		c.after(31 * time.Second)
		var leases []balance.Lease
		for range 20 {
			l, err := c.p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
			leases = append(leases, l)
		}
		require.Equal(t, 1, c.p.Server("a").InFlight())
		for _, l := range leases {
			l.Done(balance.Outcome{})
		}
	})
}

func TestOutlierGrowthIsBoundedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{Base: 10 * time.Second, Max: 25 * time.Second}, "a b")
		c.send("a", "xxxxx")
		for range 4 {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			c.send("a", "x")
		}
		var spans []string
		for _, line := range strings.Split(c.after(200*time.Second), "\n") {
			if _, span, ok := strings.Cut(line, "("); ok {
				spans = append(spans, strings.TrimSuffix(span, ")"))
			}
		}
		require.Equal(t, "10s 20s 25s 25s 25s", strings.Join(spans, " "))
		c.send("a", ".")
		c.after(300 * time.Second) // 9 intervals in use
		c.send("a", "xxxxx")
		require.Contains(t, c.after(301*time.Second), "(10s)")
	})
}

// TestOutlierKeepsTheMinimum lets everything fail.
func TestOutlierKeepsTheMinimum(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outlier *health.Outlier
		servers string
		usable  int
	}{
		{"one of ten percent, but one", &health.Outlier{}, "a b c d", 3},
		{"half", &health.Outlier{MaxShare: 0.5}, "a b c d", 2},
		{"all but one", &health.Outlier{MaxShare: 1}, "a b c d", 1},
		{"all but three", &health.Outlier{MaxShare: 1, Keep: 3}, "a b c d", 3},
		{"the only one stays", &health.Outlier{MaxShare: 1}, "a", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := try(t, tt.outlier, tt.servers)
				for range 3 {
					for _, s := range strings.Fields(tt.servers) {
						c.send(s, "xxxxxxxxxx")
					}
				}
				require.Equal(t, tt.usable, c.p.Usable())
				said := c.after(time.Second)
				require.Equal(t, tt.usable, strings.Count(said, "kept:"), "said once each:\n%s", said)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{MaxShare: 1}, "a b")
		c.p.Server("b").Report(balance.Check, balance.Down, "refused")
		c.send("a", "xxxxx")
		require.Equal(t, "0s a kept: 5 errors in a row, last status 503; 0 of 2 are out, 0 would be left", c.after(time.Second),
			"those that are down for another reason count")
	})
}

func TestOutlierGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{Consecutive: -1, Gateway: 3}, "a b")
		c.send("a", "xx5xx5555555.")
		require.Empty(t, c.after(time.Second))
		c.send("a", "xrx")
		require.Equal(t, "1s a ejected: 3 errors in a row, last status 503 (30s)", c.after(2*time.Second))
	})
}

func TestOutlierShares(t *testing.T) {
	mix := func(good, bad int) string { // no long rows
		return strings.Repeat("x.", bad) + strings.Repeat(".", good-bad)
	}
	for _, tt := range []struct {
		name    string
		outlier *health.Outlier
		bad     []int // of 100 outcomes, for a, b, c, ...
		want    string
	}{
		{"one stands out", &health.Outlier{}, []int{0, 1, 0, 1, 0, 40}, "10s f ejected: 60.0% success where 64.9% is the least (30s)"},
		{"they are alike", &health.Outlier{}, []int{40, 41, 40, 41, 40, 42}, ""},
		{"too few servers", &health.Outlier{}, []int{0, 0, 0, 40}, ""},
		{"too little volume", &health.Outlier{Volume: 200}, []int{0, 0, 0, 0, 0, 40}, ""},
		{"not asked for", &health.Outlier{Deviation: -1}, []int{0, 0, 0, 0, 0, 40}, ""},
		{"failure share", &health.Outlier{Deviation: -1, FailureShare: 0.4, MaxShare: 1, Keep: 1}, []int{0, 0, 39, 40, 0, 45},
			"10s f ejected: 45.0% errors (30s)\n10s d ejected: 40.0% errors (30s)"},
		{"the worst first", &health.Outlier{Deviation: -1, FailureShare: 0.2}, []int{20, 0, 0, 40, 30},
			"10s d ejected: 40.0% errors (30s)\n10s e kept: 30.0% errors; 1 of 5 are out, 3 would be left\n10s a kept: 20.0% errors; 1 of 5 are out, 3 would be left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				names := strings.Fields("a b c d e f")[:len(tt.bad)]
				c := try(t, tt.outlier, strings.Join(names, " "))
				c.after(5 * time.Second)
				for i, s := range names {
					c.send(s, mix(100-tt.bad[i], tt.bad[i]))
				}
				require.Equal(t, tt.want, c.after(11*time.Second))
				require.Empty(t, c.after(25*time.Second), "an interval counts for itself")
			})
		})
	}
}

func TestOutlierEndsWithAllIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, "a", "b")
		o := &health.Outlier{Pool: p, Logger: quiet}
		p.OnOutcome = append(p.OnOutcome, o.Observe)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.Run(ctx) }()
		synctest.Wait()
		for range 5 {
			o.Observe(p.Server("a"), balance.Outcome{Class: balance.Reset})
		}
		synctest.Wait()
		require.Equal(t, 1, p.Usable())
		p.Server("a").Report(balance.Check, balance.Down, "refused")
		cancel()
		<-done
		require.Equal(t, 1, p.Usable(), "what the check says stays")
		p.Server("a").Report(balance.Check, balance.Up, "")
		require.Equal(t, 2, p.Usable())
		o.Observe(p.Server("a"), balance.Outcome{Class: balance.Reset}) // does nothing
	})
}

func TestOutlierRefuses(t *testing.T) {
	p := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){func(*balance.Server, balance.Outcome) {}}}
	for field, o := range map[string]*health.Outlier{
		"Outlier.Pool":           {},
		"Outlier.Pool.OnOutcome": {Pool: &balance.Pool{}},
		"Outlier.Base":           {Pool: p, Base: -1},
		"Outlier.FailureShare":   {Pool: p, FailureShare: 2},
		"Outlier.MaxShare":       {Pool: p, MaxShare: -1},
	} {
		var bad *penstock.ConfigError
		require.ErrorAs(t, o.Run(t.Context()), &bad)
		require.Equal(t, field, bad.Field)
	}
}
