// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// TestOutlierKeepHoldsWhenEverythingFails lets every server answer 503 for some minutes.
// A server on trial takes one request at a time, so it does not count among those kept.
func TestOutlierKeepHoldsWhenEverythingFails(t *testing.T) {
	for keep := range 4 {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &health.Outlier{MaxShare: 1, Keep: keep, Base: 5 * time.Second}
				c := tryPool(t, o, &balance.Pool{Queue: balance.Queue{Size: -1}, OnOutcome: []func(*balance.Server, balance.Outcome){o.Observe}}, "a b c")
				for range 3000 {
					var leases []balance.Lease
					for range 8 {
						l, err := c.p.Acquire(t.Context(), balance.Request{})
						if err != nil {
							t.Fatalf("after %v: %v\n%s", time.Since(c.begin), err, strings.Join(c.said, "\n"))
						}
						leases = append(leases, l)
					}
					for _, l := range leases {
						l.Done(balance.Outcome{Class: balance.StatusError, Status: 503})
					}
					time.Sleep(130 * time.Millisecond)
					synctest.Wait()
					full := 0 // in full use
					for _, e := range c.p.Explain() {
						if e.Used && !strings.Contains(e.Reason, "on trial") {
							full++
						}
					}
					require.GreaterOrEqual(t, full, max(keep, 1))
				}
				if keep < 3 {
					require.Contains(t, c.after(time.Hour), "failed on trial")
				}
			})
		})
	}
}

// TestOutlierKeepHoldsWhenTheKeptGoDown takes down the server that was kept.
func TestOutlierKeepHoldsWhenTheKeptGoDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{MaxShare: 1}, "a b c d")
		c.send("a", "xxxxx")
		c.after(time.Second)
		c.send("b", "xxxxx")
		c.send("c", "xxxxx")
		c.send("d", "xxxxx")
		require.Contains(t, c.after(2*time.Second), "d kept")
		c.p.Server("d").Report(balance.Check, balance.Down, "refused")
		c.p.Server("a").SetAdmin(balance.Drain, "by hand")
		require.Equal(t, "3s b returned: too few servers are left", c.after(10*time.Second), "not a, which would not serve")
		require.Equal(t, 1, c.p.Usable())

		c.send("b", "xxxxx")
		require.Equal(t, "10s b kept: 5 errors in a row, last status 503; 2 of 4 are out, 0 would be left", c.after(11*time.Second))
	})
}

// TestOutlierKeepsTheOneThatFailsOnTrial has nobody else left when a trial fails.
func TestOutlierKeepsTheOneThatFailsOnTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{}, "a b")
		c.send("a", "xxxxx")
		c.after(31 * time.Second)
		c.p.Server("b").Report(balance.Check, balance.Down, "refused")
		c.send("a", "x")
		require.Equal(t, "31s a kept: failed on trial: status 503; 0 of 2 are out, 0 would be left", c.after(31*time.Second+time.Millisecond))
		require.Equal(t, "a: used", c.p.Explain()[0].String(), "in full use")
	})
}

// TestOutlierDoesNotCountOnTrialAsLeft has the last but one fail while another server
// waits for its trial.
func TestOutlierDoesNotCountOnTrialAsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{MaxShare: 1}, "a b c")
		c.send("c", "xxxxx")
		require.Contains(t, c.after(31*time.Second), "c on trial")
		c.send("a", "xxxxx")
		c.send("b", "xxxxx")
		require.Equal(t, "31s a ejected: 5 errors in a row, last status 503 (30s)\n"+
			"31s b kept: 5 errors in a row, last status 503; 2 of 3 are out, 0 would be left", c.after(31*time.Second+time.Millisecond))
	})
}

// TestOutlierRefillsWhileNewsKeepComing has a kept server go down, while another fails all
// the time.
func TestOutlierRefillsWhileNewsKeepComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := try(t, &health.Outlier{MaxShare: 1, Keep: 2, Interval: time.Hour, Base: time.Hour}, "a b c d")
		c.send("a", "xxxxx")
		c.send("b", "xxxxx")
		c.send("d", "xxxxx")
		require.Contains(t, c.after(time.Second), "d kept")
		c.p.Server("c").Report(balance.Check, balance.Down, "refused")
		for c.p.Usable() < 2 {
			c.send("d", "xxxxx")
			time.Sleep(300 * time.Millisecond)
			require.Less(t, time.Since(c.begin), 3*time.Second, "it comes back within a second")
		}
		require.Contains(t, c.after(3*time.Second), "a returned: too few servers are left")
	})
}
