// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
)

// A stackLog counts the panics that were logged with their stack.
type stackLog struct {
	slog.Handler
	n atomic.Int32
}

func newStackLog() *stackLog { return &stackLog{Handler: slog.NewTextHandler(io.Discard, nil)} }

func (l *stackLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stack" && strings.Contains(a.Value.String(), "panic_test.go") {
			l.n.Add(1)
		}
		return true
	})
	return nil
}

// What a Checker calls of the host's may panic: one probe or one call ends, the
// Checker goes on, and the server is not blamed.
func TestCheckerSurvivesHostPanics(t *testing.T) {
	boom := func() { panic("boom") }
	good := health.Func(func(context.Context, balance.Endpoint) error { return nil })
	bad := health.Func(func(context.Context, balance.Endpoint) error { boom(); return nil })
	for name, set := range map[string]func(c *health.Checker){
		"Probe":        func(c *health.Checker) { c.Probe = bad },
		"Probe in All": func(c *health.Checker) { c.Probe = health.All{good, bad} },
		"Probe in Any": func(c *health.Checker) { c.Probe = health.Any{bad, bad} },
		"Connect.Dial": func(c *health.Checker) {
			c.Probe = health.TCP{Connect: health.Connect{Dial: func(context.Context, string, string) (net.Conn, error) { boom(); return nil, nil }}}
		},
		"OnResult": func(c *health.Checker) { c.OnResult = func(health.Result) { boom() } },
		"Key":      func(c *health.Checker) { c.Key = func(balance.Endpoint) string { boom(); return "" } },
		"Observe.Classify": func(c *health.Checker) {
			c.Observe.Classify = func(balance.Outcome) health.Rating { boom(); return health.Bad }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newStackLog()
				was := slog.Default() // Any has no logger
				slog.SetDefault(slog.New(log))
				defer slog.SetDefault(was)
				p := new(balance.Pool)
				c := &health.Checker{Pools: []*balance.Pool{p}, Probe: good, Logger: slog.New(log)}
				p.OnOutcome = append(p.OnOutcome, c.Observed)
				if err := p.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
					t.Fatal(err)
				}
				set(c)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx) }()
				time.Sleep(time.Minute)
				l, err := p.Acquire(ctx, balance.Request{})
				if err != nil {
					t.Fatal(err)
				}
				l.Done(balance.Outcome{Class: balance.Reset})
				s := p.Server("10.0.0.1:80")
				st, ok := c.Status(s)
				if !ok || st.Last.IsZero() || time.Since(st.Last) > 3*time.Second {
					t.Errorf("status %+v: the checker does not probe any more", st)
				}
				if !s.Usable() {
					t.Errorf("the server is blamed: %s", st.Reason)
				}
				if log.n.Load() == 0 {
					t.Error("no stack in the log")
				}
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("Run = %v", err)
				}
			})
		})
	}
}

// An OnReply that panics ends nothing: what the agent said counts, the stack is
// logged, and the checker goes on.
func TestAgentCheckerSurvivesOnReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newStackLog()
		_, n := fake(t, healthtest.Agent{Line: "drain"})
		p := new(balance.Pool)
		if err := p.Set(balance.Endpoint{Addr: addr}); err != nil {
			t.Fatal(err)
		}
		asked := 0
		a := &health.AgentChecker{
			Pools: []*balance.Pool{p}, Logger: slog.New(log), Interval: time.Second,
			Agent:   health.Agent{Connect: health.Connect{Dial: n.DialContext}},
			OnReply: func(*balance.Server, health.AgentReply, error) { asked++; panic("boom") },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+500*time.Millisecond)
		defer cancel()
		if err := a.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run = %v", err)
		}
		if asked < 9 || int(log.n.Load()) != asked {
			t.Errorf("asked %d times in 10 s, %d stacks", asked, log.n.Load())
		}
		if got := p.Server(addr).State(); got != balance.StateStopping {
			t.Errorf("state %v", got)
		}
	})
}

// The same of an Outlier.
func TestOutlierSurvivesHostPanics(t *testing.T) {
	for name, set := range map[string]func(o *health.Outlier){
		"Classify":   func(o *health.Outlier) { o.Classify = func(balance.Outcome) health.Rating { panic("boom") } },
		"OnEjection": func(o *health.Outlier) { o.OnEjection = func(health.Ejection) { panic("boom") } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newStackLog()
				p := new(balance.Pool)
				o := &health.Outlier{Pool: p, Logger: slog.New(log)}
				p.OnOutcome = append(p.OnOutcome, o.Observe)
				set(o)
				if err := p.Set(balance.Endpoint{Addr: "10.0.0.1:80"}, balance.Endpoint{Addr: "10.0.0.2:80"}); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- o.Run(ctx) }()
				synctest.Wait()
				for range 20 {
					l, err := p.Acquire(ctx, balance.Request{})
					if err != nil {
						t.Fatal(err)
					}
					l.Done(balance.Outcome{Class: balance.Reset})
					synctest.Wait()
				}
				time.Sleep(5 * time.Minute) // those that were ejected come back
				if log.n.Load() == 0 {
					t.Error("no stack in the log")
				}
				if p.Usable() != 2 {
					t.Errorf("%d servers are usable; want 2", p.Usable())
				}
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("Run = %v", err)
				}
			})
		})
	}
}
