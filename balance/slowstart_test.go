// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPart has values of Envoy's formula, max(floor, (t/window)^(1/aggression)),
// rounded down to a tenth.
func TestPart(t *testing.T) {
	const w = 100 * time.Second
	for _, test := range []struct {
		conf SlowStart
		at   time.Duration
		part float64
		next time.Duration
	}{
		{SlowStart{Window: w}, 0, 0.1, 10 * time.Second},
		{SlowStart{Window: w}, 15 * time.Second, 0.1, 5 * time.Second},
		{SlowStart{Window: w}, 35 * time.Second, 0.3, 5 * time.Second},
		{SlowStart{Window: w}, 99 * time.Second, 0.9, time.Second},
		{SlowStart{Window: w}, w, 1, 0},
		{SlowStart{Window: w, Aggression: 2}, 25 * time.Second, 0.5, 11 * time.Second}, // sqrt(1/4); sqrt(0.36) = 0.6
		{SlowStart{Window: w, Aggression: 0.5}, 50 * time.Second, 0.2, 4772255752},     // (1/2)^2; sqrt(0.3) = 0.5477...
		{SlowStart{Window: w, Floor: 0.35}, 5 * time.Second, 0.35, 5 * time.Second},
		{SlowStart{Window: w, Floor: 0.01}, 5 * time.Second, 0.01, 5 * time.Second},
		{SlowStart{}, 0, 1, 0},
		{SlowStart{Window: -1}, 0, 1, 0},
	} {
		part, next := test.conf.part(test.at)
		require.InDelta(t, test.part, part, 1e-9, "%+v at %v", test.conf, test.at)
		require.InDelta(t, test.next, next, 2, "%+v at %v", test.conf, test.at)
	}
}

// hold takes n leases and returns how many each server has.
func hold(t *testing.T, p *Pool, n int) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	var leases []Lease
	for i := range n {
		l, err := p.Acquire(context.Background(), Request{Key: uint64(i)*0x9e3779b97f4a7c15 + 1})
		require.NoError(t, err)
		counts[l.s.name]++
		leases = append(leases, l)
	}
	for _, l := range leases {
		l.Done(Outcome{Latency: time.Millisecond, At: time.Now()})
	}
	return counts
}

// TestSlowStart lets one of two servers return, for every policy.
func TestSlowStart(t *testing.T) {
	for name, policy := range map[string]Policy{
		"RoundRobin": RoundRobin{}, "LeastConn": LeastConn{}, "TwoChoices": TwoChoices{}, "Random": Random{}, "PeakEWMA": PeakEWMA{},
		"Ring": Ring{}, "Maglev": Maglev{}, "Rendezvous": Rendezvous{},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Pool{Policy: policy, SlowStart: SlowStart{Window: 100 * time.Second}, Seed: 1}
				require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1"}, Endpoint{Name: "b", Addr: "b:1"}))
				const n = 1100
				even := hold(t, p, n)
				require.InDelta(t, n/2, even["b"], 150, "all are new: nobody is throttled")

				time.Sleep(time.Hour)
				b := p.Server("b")
				b.Report(Check, Down, "")
				b.Report(Check, Up, "")
				for _, step := range []struct {
					after time.Duration
					part  float64
				}{
					{0, 0.1}, {10 * time.Second, 0.1}, {20 * time.Second, 0.3}, {30 * time.Second, 0.6}, {60 * time.Second, 1},
				} {
					time.Sleep(step.after)
					synctest.Wait()
					want := n * step.part / (1 + step.part)
					require.InDelta(t, want, hold(t, p, n)["b"], 20+0.25*want, "at %v", step.part)
				}
				require.Equal(t, StateUp, b.State())
			})
		})
	}
}

func TestSlowStartLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{SlowStart: SlowStart{Window: 100 * time.Second}}
		require.NoError(t, p.Set(Endpoint{Addr: "a:1", MaxConns: 20}, Endpoint{Addr: "b:1", MaxConns: 5}))
		limits := func() (int, int) { e := p.Explain(); return e[0].Limit, e[1].Limit }
		a, b := limits()
		require.Equal(t, []int{20, 5}, []int{a, b}, "all are new")
		time.Sleep(time.Hour)
		// A new one joins those which are warm; one changes its address.
		require.NoError(t, p.Set(Endpoint{Name: "a:1", Addr: "elsewhere:1", MaxConns: 20}, Endpoint{Addr: "b:1", MaxConns: 5}, Endpoint{Addr: "c:1", MaxConns: 5}))
		require.Equal(t, StateWarming, p.Server("a:1").State())
		a, b = limits()
		require.Equal(t, []int{2, 5}, []int{a, b})
		require.Equal(t, 1, p.Explain()[2].Limit, "never 0")
		time.Sleep(55 * time.Second)
		synctest.Wait()
		a, _ = limits()
		require.Equal(t, 10, a)
		time.Sleep(time.Minute)
		synctest.Wait()
		a, _ = limits()
		require.Equal(t, 20, a)
	})
}

// TestRampSteps counts how often a hashing policy is built in one ramp.
func TestRampSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var builds atomic.Int64
		p := &Pool{SlowStart: SlowStart{Window: time.Minute}, Policy: PolicyFunc(func(v View) Picker {
			builds.Add(1)
			return Maglev{Size: 1009}.Picker(v)
		})}
		require.NoError(t, p.Set(Endpoint{Addr: "a:1"}, Endpoint{Addr: "b:1"}))
		time.Sleep(time.Hour)
		p.Server("a:1").SetAdmin(Maint, "")
		p.Server("a:1").SetAdmin(Ready, "")
		builds.Store(0)
		time.Sleep(time.Hour)
		require.LessOrEqual(t, builds.Load(), int64(10))
		require.GreaterOrEqual(t, builds.Load(), int64(9))
	})
}
