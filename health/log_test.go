// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestLogNamesThePool reads log lines as a program does: each names the pool and the server,
// and health is a word in JSON too.
func TestLogNamesThePool(t *testing.T) {
	type line struct{ Level, Msg, Pool, Server, Health, Reason string }
	for _, tt := range []struct {
		name, pool string
		run        func(t *testing.T, p *balance.Pool, n *l4test.Network, log *slog.Logger)
		want       line
	}{
		{"checker", "web", func(t *testing.T, p *balance.Pool, _ *l4test.Network, log *slog.Logger) {
			other := &balance.Pool{Name: "other"}
			join(t, other, "b")
			run(t, &health.Checker{Pools: []*balance.Pool{other, p}, Logger: log, Fall: 1, Probe: health.Func(func(_ context.Context, e balance.Endpoint) error {
				if e.Name == "a" {
					return errors.New("on fire")
				}
				return nil
			})})
		}, line{"WARN", "health changed", "web", "a", "down", "on fire"}},
		{"no name", "", func(t *testing.T, p *balance.Pool, _ *l4test.Network, log *slog.Logger) {
			run(t, &health.Checker{Pools: []*balance.Pool{p}, Logger: log, Fall: 1, Probe: health.Func(func(context.Context, balance.Endpoint) error { return errors.New("on fire") })})
		}, line{"WARN", "health changed", "", "a", "down", "on fire"}},
		{"unprobed", "web", func(t *testing.T, p *balance.Pool, _ *l4test.Network, log *slog.Logger) {
			run(t, &health.Checker{Pools: []*balance.Pool{p}, Logger: log, Probe: health.Func(func(context.Context, balance.Endpoint) error {
				return &health.Error{Code: health.CodeInternal, Text: "no descriptors"}
			})})
		}, line{"WARN", "cannot check health", "web", "a", "", "no descriptors"}},
		{"agent", "web", func(t *testing.T, p *balance.Pool, n *l4test.Network, log *slog.Logger) {
			ln, err := n.Listen("tcp", "10.0.0.1:9999")
			require.NoError(t, err)
			s := &healthtest.Server{Service: healthtest.Agent{Line: "down # repair"}}
			go s.Serve(ln)
			t.Cleanup(func() { s.Close() })
			a := &health.AgentChecker{Pools: []*balance.Pool{p}, Logger: log, Agent: health.Agent{Connect: health.Connect{Addr: "10.0.0.1:9999", Dial: n.DialContext}}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- a.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-done })
		}, line{"WARN", "agent changed", "web", "a", "down", "down: repair"}},
		{"outlier", "web", func(t *testing.T, p *balance.Pool, _ *l4test.Network, log *slog.Logger) {
			tryPool(t, &health.Outlier{Logger: log, Consecutive: 2}, p, "a b c").send("a", "rr")
		}, line{"WARN", "outlier ejected", "web", "a", "", "2 errors in a row, last reset"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log safeBuffer
				p := &balance.Pool{Name: tt.pool}
				join(t, p, "a")
				tt.run(t, p, l4test.NewNetwork(), slog.New(slog.NewJSONHandler(&log, nil)))
				time.Sleep(time.Second)
				synctest.Wait()
				var got line
				said := log.take()
				require.NoError(t, json.Unmarshal([]byte(said), &got), said)
				require.Equal(t, tt.want, got)
				require.Equal(t, tt.pool != "", strings.Contains(said, `"pool"`), "%s", said)
			})
		})
	}
}
