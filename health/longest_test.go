// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// The longest duration there is means a long time, wherever something is added
// to it.
func TestLongestDurations(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	require.Positive(t, new(ejection).eject(time.Now(), most, most, most))
	require.Equal(t, time.Minute+time.Second, new(ejection).eject(time.Now(), time.Minute, time.Hour, time.Second))
	for _, spread := range []time.Duration{-1, most} {
		synctest.Test(t, func(t *testing.T) {
			p := &balance.Pool{}
			require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}, balance.Endpoint{Addr: "b:1"}, balance.Endpoint{Addr: "c:1"}))
			probes := 0
			c := &Checker{Pools: []*balance.Pool{p}, Interval: most, Fast: most, Down: most, Timeout: most, Jitter: 0.5, Spread: spread, Concurrency: 1,
				Probe: Func(func(context.Context, balance.Endpoint) error { probes++; return nil })}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_ = c.Run(ctx)
			want := 3
			if spread > 0 {
				want = 1 // the others much later
			}
			require.Equal(t, want, probes, "spread %v", spread)
		})
	}
}

// A gRPC timeout has at most eight digits (gRPC over HTTP/2, "Timeout").
func TestGRPCTimeoutHasEightDigits(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 48 * time.Hour, math.MaxInt64} {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		deadline, _ := ctx.Deadline()
		h := make(http.Header)
		setGRPCTimeout(h, deadline)
		v, ok := strings.CutSuffix(h.Get("Grpc-Timeout"), "m")
		n, err := strconv.Atoi(v)
		require.True(t, ok && err == nil && len(v) <= 8 && n > 1000, "%v became %q", d, h)
	}
}

// The greatest number in a row means never.
func TestGreatestCounts(t *testing.T) {
	refused := Func(func(context.Context, balance.Endpoint) error { return &Error{Code: CodeRefused} })
	passed := Func(func(context.Context, balance.Endpoint) error { return nil })
	for _, initial := range []Initial{InitialUp, InitialFullyUp} {
		var failing atomic.Bool
		probe := Func(func(ctx context.Context, e balance.Endpoint) error {
			if failing.Load() {
				return refused(ctx, e)
			}
			return passed(ctx, e)
		})
		synctest.Test(t, func(t *testing.T) {
			p := &balance.Pool{}
			require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}))
			c := &Checker{Pools: []*balance.Pool{p}, Probe: probe, Fall: math.MaxInt, Rise: math.MaxInt, Initial: initial}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = c.Run(ctx) }()
			time.Sleep(time.Minute)
			failing.Store(true)
			time.Sleep(time.Hour)
			require.True(t, p.Server("a:1").Usable(), "%v", initial)
			cancel()
			<-done
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{}
		require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}))
		c := &Checker{Pools: []*balance.Pool{p}, Probe: passed, Rise: math.MaxInt, Fall: math.MaxInt, Initial: InitialFullyDown}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_ = c.Run(ctx)
		require.False(t, p.Server("a:1").Usable())
	})
	pools := []*balance.Pool{{}}
	require.ErrorContains(t, (&Checker{Pools: pools, Concurrency: math.MaxInt}).Check(), "Checker.Concurrency: 9223372036854775807")
	require.ErrorContains(t, (&AgentChecker{Pools: pools, Concurrency: math.MaxInt}).Check(), "AgentChecker.Concurrency: 9223372036854775807")
}
