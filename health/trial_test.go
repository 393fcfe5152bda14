// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// lease takes a lease of the named server, at once.
func (c *court) lease(name string) balance.Lease {
	c.t.Helper()
	l, err := c.p.Acquire(c.t.Context(), balance.Request{Prefer: name})
	require.NoError(c.t, err)
	return l
}

// tryLive runs o over a pool whose leases tell it how they end.
func tryLive(t *testing.T, o *health.Outlier, names string) *court {
	return tryPool(t, o, &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){o.Observe}}, names)
}

// TestOutlierTrialOfLongWork has connections that last for hours.
func TestOutlierTrialOfLongWork(t *testing.T) {
	for _, tt := range []struct {
		name  string
		trial time.Duration
		works bool
		want  string
	}{
		{"it answers", 0, true, "31s a returned: well again"},
		{"it is silent, and lasts", 0, false, "1m1s a returned: no failure on trial"},
		{"it is silent for the time of the trial", 7 * time.Second, false, "38s a returned: no failure on trial"},
		{"only an outcome counts", -1, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := tryLive(t, &health.Outlier{Trial: tt.trial}, "a b")
				c.after(time.Second)
				c.send("a", "xxxxx")
				require.Contains(t, c.after(31*time.Second), "a on trial")
				for range 40 {
					l, err := c.p.Acquire(t.Context(), balance.Request{})
					require.NoError(t, err)
					if tt.works {
						l.Works(0)
					}
				}
				synctest.Wait()
				require.Equal(t, tt.want, c.after(10*time.Minute))
				for range 40 {
					_, err := c.p.Acquire(t.Context(), balance.Request{})
					require.NoError(t, err)
				}
				if tt.want != "" {
					require.InDelta(t, 40, c.p.Server("a").InFlight(), 20)
				} else {
					require.Equal(t, 1, c.p.Server("a").InFlight())
				}
			})
		})
	}
}

func TestOutlierTrialWithoutWorkGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tryLive(t, &health.Outlier{}, "a b")
		c.send("a", "xxxxx")
		require.NotContains(t, c.after(time.Hour), "returned", "nothing to judge by")
		c.lease("a").Done(balance.Outcome{Class: balance.Reset})
		require.Equal(t, "1h0m0s a ejected: failed on trial: reset (1m0s)", c.after(time.Hour+time.Second))
	})
}

// TestOutlierTrialIsNotDecidedByOldWork has leases from before the ejection.
func TestOutlierTrialIsNotDecidedByOldWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tryLive(t, &health.Outlier{Trial: -1}, "a b")
		old := []balance.Lease{c.lease("a"), c.lease("a"), c.lease("a")}
		c.send("a", "xxxxx")
		c.after(31 * time.Second)
		old[0].Done(balance.Outcome{Class: balance.OK})
		old[1].Done(balance.Outcome{Class: balance.Reset})
		old[2].Works(0)
		require.Empty(t, c.after(40*time.Second))
		c.lease("a").Done(balance.Outcome{Class: balance.OK})
		require.Equal(t, "40s a returned: well again", c.after(50*time.Second))
		old[2].Done(balance.Outcome{Class: balance.OK})
	})
}

// TestOutlierTrialIsNotEndedByOldWork has a lease from before the ejection that lasts, and
// no other.
func TestOutlierTrialIsNotEndedByOldWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tryLive(t, &health.Outlier{}, "a b")
		old := c.lease("a")
		c.send("a", "xxxxx")
		require.NotContains(t, c.after(time.Hour), "returned", "nothing was tried")
		l := c.lease("a")
		require.Contains(t, c.after(time.Hour+time.Minute), "a returned: no failure on trial")
		l.Done(balance.Outcome{})
		old.Done(balance.Outcome{})
	})
}

func TestReturnForgetsAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &health.Outlier{Consecutive: 2, Base: time.Hour, Max: 2 * time.Hour, MaxShare: 1, Logger: quiet}
		p := pool(t, "a", "b")
		o.Pool = p
		p.OnOutcome = []func(*balance.Server, balance.Outcome){o.Observe}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		synctest.Wait()
		a := p.Server("a")
		require.False(t, o.Return(a, "not out"))
		fail := func() {
			for range 2 {
				o.Observe(a, balance.Outcome{Class: balance.Reset})
			}
			synctest.Wait()
			require.False(t, a.Usable())
		}
		fail()
		require.True(t, o.Return(a, "the disk was replaced"))
		synctest.Wait()
		require.True(t, a.Usable())
		require.Equal(t, "the disk was replaced", p.Explain()[0].Reports[0].Reason)
		fail() // for the first time again
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		require.True(t, a.Usable(), "on trial after Base, not twice that")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.False(t, o.Return(a, "not running"))
	})
}
