// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
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
