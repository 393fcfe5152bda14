// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDivide has the examples of Envoy's documentation of priority levels: percentages
// of usable servers in each level and of the load they get.
func TestDivide(t *testing.T) {
	for _, test := range []struct {
		usable []float64
		over   float64
		load   []float64
	}{
		{[]float64{100}, 1.4, []float64{100}},
		{[]float64{72, 72}, 1.4, []float64{100, 0}},
		{[]float64{71, 71}, 1.4, []float64{99.4, 0.6}},
		{[]float64{50, 50}, 1.4, []float64{70, 30}},
		{[]float64{25, 100}, 1.4, []float64{35, 65}},
		{[]float64{25, 25}, 1.4, []float64{50, 50}},
		{[]float64{20, 20, 10}, 1.4, []float64{40, 40, 20}},
		{[]float64{0, 100}, 1.4, []float64{0, 100}},
		{[]float64{0, 0}, 1.4, []float64{100, 0}},
		{[]float64{1, 100}, 0, []float64{100, 0}},
		{[]float64{0, 1, 100}, 0, []float64{0, 100, 0}},
	} {
		var tiers []tier
		for _, u := range test.usable {
			tiers = append(tiers, tier{weight: 100, usable: u})
		}
		loads := divide(tiers, test.over, 0)
		for i, want := range test.load {
			require.InDelta(t, want, loads[i]*100, 1e-9, "%v: level %d", test.usable, i)
		}
	}
}

// share counts where n picks go, by the first letter of the server.
func share(t *testing.T, p *Pool, n int) map[string]float64 {
	t.Helper()
	counts := make(map[string]float64)
	for range n {
		l, err := p.Acquire(context.Background(), Request{})
		require.NoError(t, err)
		counts[l.s.name[:1]] += 100 / float64(n)
		l.Done(Outcome{})
	}
	return counts
}

// tiered returns n servers a0, a1, ... of tier 0, and b0, ... of tier 1.
func tiered(n int) []Endpoint {
	var eps []Endpoint
	for i := range n {
		eps = append(eps, Endpoint{Name: fmt.Sprint("a", i), Addr: "h:1"}, Endpoint{Name: fmt.Sprint("b", i), Addr: "h:1", Tier: 1})
	}
	return eps
}

func down(t *testing.T, p *Pool, names ...string) {
	t.Helper()
	for _, name := range names {
		p.Server(name).Report(Check, Down, "test")
	}
}

func TestTiers(t *testing.T) {
	p := &Pool{Policy: RoundRobin{}, Seed: 1}
	require.NoError(t, p.Set(tiered(4)...))
	down(t, p, "a0", "a1", "a2")
	require.Equal(t, map[string]float64{"a": 100}, share(t, p, 100), "as long as there is one")
	require.Equal(t, 5, p.Usable())
	require.Contains(t, p.Explain()[1].String(), "spare")
	down(t, p, "a3")
	require.InDelta(t, 100, share(t, p, 100)["b"], 1e-9)
}

func TestTiersSpill(t *testing.T) {
	p := &Pool{Policy: RoundRobin{}, Tiers: Tiers{Overprovision: 1.4}, Seed: 1}
	require.NoError(t, p.Set(tiered(4)...))
	require.InDelta(t, 100, share(t, p, 100)["a"], 1e-9)
	down(t, p, "a0", "a1") // half of it carries 70 %
	require.InDelta(t, 70, share(t, p, 10000)["a"], 2)
}

func TestTiersOverflow(t *testing.T) {
	for _, overflow := range []bool{false, true} {
		p := &Pool{Policy: RoundRobin{}, Tiers: Tiers{Overflow: overflow}, Queue: Queue{Size: -1}}
		require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "h:1", MaxConns: 1}, Endpoint{Name: "b", Addr: "h:1", Tier: 1}))
		_, err := p.Acquire(context.Background(), Request{})
		require.NoError(t, err)
		l, err := p.Acquire(context.Background(), Request{})
		if !overflow {
			require.ErrorIs(t, err, ErrQueueFull)
			// What was tried is no help, though: the backup is better than nothing.
			var req Request
			req.Avoid(p.Server("a"))
			l, err = p.Acquire(context.Background(), req)
		}
		require.NoError(t, err)
		require.Equal(t, "b", l.s.name)
	}
}

func TestPanic(t *testing.T) {
	var events []string
	p := &Pool{Policy: RoundRobin{}, Panic: 0.5, OnEvent: func(e Event) {
		if e.Server == nil {
			events = append(events, e.Kind.String())
		}
	}}
	var eps []Endpoint
	for _, n := range []string{"a", "b", "c", "d"} {
		eps = append(eps, Endpoint{Name: n, Addr: "h:1"})
	}
	require.NoError(t, p.Set(eps...))
	down(t, p, "a", "b")
	require.Len(t, share(t, p, 100), 2)
	down(t, p, "c") // a quarter is left: rather the checks are wrong
	require.Len(t, share(t, p, 100), 4)
	require.Equal(t, 1, p.Usable())
	require.Contains(t, p.Explain()[0].String(), "a: used: panic")
	p.Server("c").SetAdmin(Maint, "really")
	require.Len(t, share(t, p, 100), 3, "what the operator says holds")
	down(t, p, "d")
	require.Len(t, share(t, p, 100), 3)
	p.Server("a").Report(Check, Up, "")
	p.Server("b").Report(Check, Up, "")
	require.Len(t, share(t, p, 100), 2)
	require.Equal(t, []string{"panic began", "panic ended"}, events)
	l, err := p.Acquire(context.Background(), Request{Prefer: "d"})
	require.NoError(t, err)
	require.NotEqual(t, "d", l.s.name, "it is down, and shut again")

	// A change that the state does not show counts in panic too.
	down(t, p, "a", "b")
	require.Len(t, share(t, p, 100), 3)
	p.Server("a").SetAdmin(Drain, "")
	require.Len(t, share(t, p, 100), 2)
}

// TestLocality has three zones of callers; this one is in zone a.
func TestLocality(t *testing.T) {
	for _, test := range []struct {
		name    string
		a, b, c int // servers
		want    [3]float64
	}{
		{"enough at home", 4, 4, 4, [3]float64{100, 0, 0}},
		{"more than enough", 6, 2, 2, [3]float64{100, 0, 0}},
		// a has 20 % of the servers and 33 % of the callers: 60 % stay. b and c have
		// 6.7 % to spare each.
		{"too little", 2, 4, 4, [3]float64{60, 20, 20}},
		// 30 % stay; c has 10 % and none to spare.
		{"one can help", 1, 8, 1, [3]float64{30, 70, 0}},
		{"none at home", 0, 4, 4, [3]float64{0, 50, 50}},
		{"too few in all", 1, 2, 2, [3]float64{20, 40, 40}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Pool{Policy: RoundRobin{}, Locality: Locality{Zone: "a"}, Seed: 1}
			var eps []Endpoint
			for i, n := range []int{test.a, test.b, test.c} {
				for j := range n {
					zone := string(rune('a' + i))
					eps = append(eps, Endpoint{Name: fmt.Sprint(zone, j), Addr: "h:1", Zone: zone})
				}
			}
			require.NoError(t, p.Set(eps...))
			got := share(t, p, 20000)
			for i, want := range test.want {
				require.InDelta(t, want, got[string(rune('a'+i))], 2)
			}
		})
	}
}

// A policy of its own over the same servers: it hears of the leases of others,
// and limits hold over both.
func TestWithPolicy(t *testing.T) {
	p := &Pool{Policy: First{}, Queue: Queue{Size: -1}}
	least := p.WithPolicy(LeastConn{})
	hashed := p.Subset(func(e Endpoint) bool { return e.Name != "c" }).WithPolicy(Rendezvous{})
	require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "h:1", MaxConns: 2}, Endpoint{Name: "b", Addr: "h:1", MaxConns: 2}, Endpoint{Name: "c", Addr: "h:1", MaxConns: 2}))
	take := func(p *Pool, key uint64) string {
		l, err := p.Acquire(context.Background(), Request{Key: key})
		require.NoError(t, err)
		return l.s.name
	}
	require.Equal(t, "a", take(p, 0))
	require.ElementsMatch(t, []string{"b", "c"}, []string{take(least, 0), take(least, 0)})
	home := take(hashed, 7)
	require.NotEqual(t, "c", home)
	other := map[string]string{"a": "b", "b": "a"}[home]
	require.Equal(t, other, take(hashed, 7), "the first is full")
	_, err := hashed.Acquire(context.Background(), Request{Key: 7})
	require.ErrorIs(t, err, ErrQueueFull)
	require.Equal(t, "c", take(p.WithPolicy(nil), 0))
	_, err = p.Acquire(context.Background(), Request{})
	require.ErrorIs(t, err, ErrQueueFull)
	require.Error(t, least.Set())
}

func TestSubset(t *testing.T) {
	p := &Pool{Policy: RoundRobin{}, Queue: Queue{Size: -1}}
	ssd := p.Subset(func(e Endpoint) bool { return e.Labels["disk"] == "ssd" })
	_, err := ssd.Acquire(context.Background(), Request{})
	require.ErrorIs(t, err, ErrNoServer)
	require.NoError(t, p.Set(
		Endpoint{Name: "a", Addr: "h:1", Labels: map[string]string{"disk": "ssd"}, MaxConns: 2},
		Endpoint{Name: "b", Addr: "h:1"},
	))
	require.Equal(t, 1, ssd.Usable())
	require.Same(t, p.Server("a"), ssd.Server("a"))
	require.Nil(t, ssd.Server("b"))
	require.Equal(t, map[string]float64{"a": 100}, share(t, ssd, 10))
	l, err := ssd.Acquire(context.Background(), Request{Prefer: "b"})
	require.NoError(t, err)
	require.Equal(t, "a", l.s.name, "b is not one of them")
	require.False(t, l.Preferred())
	_, err = p.Acquire(context.Background(), Request{Prefer: "a"})
	require.NoError(t, err)
	_, err = ssd.Acquire(context.Background(), Request{})
	require.ErrorIs(t, err, ErrQueueFull, "limits hold over both")
	require.Equal(t, 2, ssd.Stats().InFlight)
	require.Error(t, ssd.Set())
	require.NoError(t, p.Set(Endpoint{Name: "b", Addr: "h:1", Labels: map[string]string{"disk": "ssd"}}))
	require.Equal(t, map[string]float64{"b": 100}, share(t, ssd, 10), "it follows Set")
	down(t, p, "b")
	require.Zero(t, ssd.Usable())
}
