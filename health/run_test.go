// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

func TestRunRefuses(t *testing.T) {
	for field, c := range map[string]*health.Checker{
		"Checker.Interval":       {Interval: -1},
		"Checker.Fast":           {Fast: -1},
		"Checker.Down":           {Down: -1},
		"Checker.Rise":           {Rise: -1},
		"Checker.Fall":           {Fall: -1},
		"Checker.Jitter":         {Jitter: 0.6},
		"Checker.Concurrency":    {Concurrency: -1},
		"Checker.Initial":        {Initial: 9},
		"Checker.Pools":          {},
		"Checker.Pools[0]":       {Pools: []*balance.Pool{nil}},
		"Checker.Observe.Errors": {Observe: health.Observe{Errors: -1}},
	} {
		if c.Pools == nil && field != "Checker.Pools" {
			c.Pools = []*balance.Pool{{}}
		}
		err := c.Run(t.Context())
		var bad *penstock.ConfigError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, field, bad.Field)
	}
	synctest.Test(t, func(t *testing.T) {
		c := &health.Checker{Pools: []*balance.Pool{{}}}
		run(t, c)
		synctest.Wait()
		require.ErrorIs(t, c.Run(t.Context()), health.ErrRunning)
	})
}

// TestRunEndsProbes cancels Run while probes hang, and expects it to wait for them.
func TestRunEndsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, "a", "b", "c")
		var hanging atomic.Int32
		slow := health.Func(func(ctx context.Context, _ balance.Endpoint) error {
			hanging.Add(1)
			defer hanging.Add(-1)
			<-ctx.Done()
			time.Sleep(time.Second) // a probe that is slow to end
			return ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- (&health.Checker{Pools: []*balance.Pool{p}, Probe: slow, Timeout: -1, Spread: -1, Logger: quiet}).Run(ctx)
		}()
		time.Sleep(time.Minute)
		require.EqualValues(t, 3, hanging.Load())
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Zero(t, hanging.Load())
		require.True(t, p.Server("a").Usable(), "a probe that was cut short says nothing")
	})
}

// TestTimeoutInWords has a machine so busy that a probe starts late: the reason tells
// the timeout all the same.
func TestTimeoutInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, "a")
		late := health.Func(func(ctx context.Context, e balance.Endpoint) error {
			time.Sleep(30 * time.Millisecond)
			return health.TCP{Connect: health.Connect{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}}.Probe(ctx, e)
		})
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: late, Timeout: time.Second}
		run(t, c)
		time.Sleep(1500 * time.Millisecond)
		st, _ := c.Status(p.Server("a"))
		require.Equal(t, "connect: no answer within 1s", st.Reason)
	})
}
