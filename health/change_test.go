// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// cuts notes what it was told to close.
type cuts struct {
	mu  sync.Mutex
	all []string
}

func (c *cuts) Cut(live bool, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf("%v: %s", live, reason))
}

func (c *cuts) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

func TestCutLiveConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), &balance.Pool{}
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "backup", Addr: "b:1", Tier: 1}))
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second, Spread: -1, CutDown: true, CutBackups: true})
		first, second := new(cuts), new(cuts)
		p.Server("a").Attach(first)
		p.Server("backup").Attach(second)
		b.after(time.Second / 2)
		b.fail("a:1", refused)
		b.after(3500 * time.Millisecond)
		require.Equal(t, []string{
			"false: check says down: connect: connection refused, 3 of 3",
			"true: connect: connection refused, 3 of 3",
		}, first.take())
		require.Empty(t, second.take())

		b.fail("a:1", nil)
		b.after(5500 * time.Millisecond)
		require.Equal(t, []string{"true: a is back"}, second.take())
		require.Empty(t, first.take())
	})
}

// TestCutBackupsAfterSoftStop has a server that asks for no new work for a while.
func TestCutBackupsAfterSoftStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), &balance.Pool{}
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "backup", Addr: "b:1", Tier: 1}))
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second, Spread: -1, CutBackups: true})
		primary, backup := new(cuts), new(cuts)
		p.Server("a").Attach(primary)
		p.Server("backup").Attach(backup)
		b.after(time.Second / 2)
		stopping := &health.Error{Code: health.CodeStopping, Step: "HTTP", Text: "status 404"}

		b.fail("a:1", stopping)
		b.after(1500 * time.Millisecond)
		require.Equal(t, balance.StateStopping, p.Server("a").State())
		l, err := p.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		require.Equal(t, "backup", l.Server().Name(), "new work goes elsewhere")
		l.Done(balance.Outcome{})
		require.Empty(t, primary.take(), "a soft stop cuts nothing")
		require.Empty(t, backup.take())

		b.fail("a:1", nil)
		b.after(2500 * time.Millisecond)
		require.Equal(t, []string{"true: a is back"}, backup.take())
		require.Empty(t, primary.take())

		// What cannot take the work does not take it away.
		b.fail("a:1", stopping)
		b.after(3500 * time.Millisecond)
		p.Server("a").SetAdmin(balance.Drain, "deploy")
		b.fail("a:1", nil)
		b.after(4500 * time.Millisecond)
		require.Equal(t, balance.StateDrain, p.Server("a").State())
		require.Empty(t, backup.take())
	})
}

// TestUnproven starts servers that get no work before they have passed.
func TestUnproven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), &balance.Pool{Unproven: true}
		b.took = 100 * time.Millisecond
		a := balance.Endpoint{Name: "a", Addr: "a:1"}
		require.NoError(t, p.Set(a))
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second, Spread: -1})
		b.after(50 * time.Millisecond)
		require.Zero(t, p.Usable())
		b.after(150 * time.Millisecond)
		require.Equal(t, 1, p.Usable())
		require.NoError(t, p.Set(a, balance.Endpoint{Name: "b", Addr: "b:1"}))
		synctest.Wait()
		require.Equal(t, 1, p.Usable())
		b.after(260 * time.Millisecond)
		require.Equal(t, 2, p.Usable(), "it was probed at once")
	})
}

// TestComesBackAtOnce has servers that leave and come back between two probes, with
// work in flight, so that they are the same servers.
func TestComesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), &balance.Pool{Unproven: true}
		b.took = 100 * time.Millisecond // or they could pass before the pool is looked at
		set := []balance.Endpoint{{Name: "ill", Addr: "a:1"}, {Name: "well", Addr: "b:1"}}
		require.NoError(t, p.Set(set...))
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second, Spread: -1})
		b.after(1500 * time.Millisecond)
		ill, well := p.Server("ill"), p.Server("well")
		for _, s := range []string{"ill", "well"} {
			l, err := p.Acquire(t.Context(), balance.Request{Prefer: s})
			require.NoError(t, err)
			defer l.Done(balance.Outcome{})
		}
		b.fail("a:1", refused)
		b.after(5500 * time.Millisecond)
		require.Equal(t, balance.StateDown, ill.State())

		require.NoError(t, p.Set())
		require.NoError(t, p.Set(set...))
		require.Same(t, ill, p.Server("ill"))
		require.Zero(t, p.Usable(), "nobody has said anything of them")
		b.after(6500 * time.Millisecond)
		require.Equal(t, balance.StateUp, well.State())
		require.Equal(t, balance.StateDown, ill.State())
		require.Contains(t, p.Explain()[0].Reason, "refused")
	})
}

// TestAddressChanges moves a server while a probe of the old address runs.
func TestAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		b.took = 500 * time.Millisecond
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second})
		b.after(10100 * time.Millisecond)
		b.fail("a:1", refused)
		b.after(20100 * time.Millisecond)
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "b:1"}))
		b.after(25 * time.Second)
		require.Equal(t, "20.5s", b.probed("b:1"), "as soon as the probe of the old address is done")
		require.True(t, p.Server("a").Usable(), "the old address says nothing of the new one")
	})
}

// TestEachCauseSaysSince has a server that all who have a say speak against, each at
// its own time, and that recovers one after another.
func TestEachCauseSaysSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a", "b")
		s := p.Server("a")
		outlier := &health.Outlier{Pool: p, Logger: quiet, Base: 100 * time.Second}
		p.OnOutcome = append(p.OnOutcome, outlier.Observe) // before anything looks at the pool
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Spread: -1})
		var line atomic.Value
		line.Store("up")
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "a:1")
		require.NoError(t, err)
		agent := &healthtest.Server{Service: serviceFunc(func(c net.Conn, m healthtest.Mode) {
			healthtest.Agent{Line: line.Load().(string)}.ServeConn(c, m)
		})}
		go agent.Serve(ln)
		defer agent.Close()
		agents := &health.AgentChecker{
			Pools: []*balance.Pool{p.Subset(func(e balance.Endpoint) bool { return e.Name == "a" })},
			Agent: health.Agent{Connect: health.Connect{Dial: n.DialContext}}, Logger: quiet, Interval: 10 * time.Second, Spread: -1,
		}
		ctx, cancel := context.WithCancel(t.Context())
		var runs sync.WaitGroup
		runs.Go(func() { agents.Run(ctx) })
		runs.Go(func() { outlier.Run(ctx) })
		defer runs.Wait()
		defer cancel()

		says := func() string {
			e := p.Explain()[0]
			text := fmt.Sprintf("operator %v: %s", e.Operator.Admin, e.Operator.Since.Sub(b.begin))
			for _, r := range e.Reports {
				text += fmt.Sprintf("; %v: %v", r, r.Since.Sub(b.begin))
			}
			return text
		}
		b.after(5 * time.Second)
		b.fail("a:1", refused)
		line.Store("down #disk")
		b.after(25 * time.Second) // the agent counts at once, the check with the third failure
		for range 5 {
			outlier.Observe(s, balance.Outcome{Class: balance.Reset})
		}
		s.Report(balance.Discovery, balance.Down, "not ready")
		b.after(35 * time.Second)
		s.SetAdmin(balance.Drain, "deploy")
		require.Equal(t, "operator drain: 35s; check says down: connect: connection refused, 3 of 3: 30s; agent says down: down: disk: 10s; "+
			"outlier says down: 5 errors in a row, last reset: 25s; discovery says down: not ready: 25s", says())

		b.fail("a:1", nil)
		b.after(55 * time.Second)
		require.Contains(t, says(), "check says up: passed: 50s; agent says down: down: disk: 10s; outlier says down")
		line.Store("up")
		b.after(65 * time.Second)
		require.Contains(t, says(), "agent says up: up: 1m0s; outlier says down: 5 errors in a row, last reset: 25s; discovery says down: not ready: 25s")
		s.Report(balance.Discovery, balance.Up, "ready")
		require.Equal(t, balance.StateDown, s.State(), "nobody undoes what another one says")
		b.after(126 * time.Second)
		require.Contains(t, says(), "outlier says up: on trial: 2m5s; discovery says up: ready: 1m5s")
		require.Equal(t, balance.StateDrain, s.State())
		s.SetAdmin(balance.Ready, "")
		require.Contains(t, says(), "operator ready: 2m6s")
		require.True(t, s.Usable())
	})
}

// TestCausesStayApart lets a server be ill for two reasons at once.
func TestCausesStayApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second})
		s := p.Server("a")
		b.fail("a:1", refused)
		b.after(500 * time.Millisecond)
		s.Report(balance.Outlier, balance.Down, "5 errors in a row")
		b.after(3500 * time.Millisecond)
		require.Contains(t, fmt.Sprint(p.Explain()), "check says down: connect: connection refused; outlier says down: 5 errors in a row")
		b.fail("a:1", nil)
		b.after(6500 * time.Millisecond)
		require.Equal(t, balance.StateDown, s.State())
		s.Report(balance.Outlier, balance.Up, "")
		require.Equal(t, balance.StateUp, s.State())
	})
}
