// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/balancetest"
)

// scoredPool returns a pool of n servers, s0 and so on.
func scoredPool(t testing.TB, policy balance.Policy, n int, weights ...int) *balance.Pool {
	p := &balance.Pool{Policy: policy, Seed: 1, Queue: balance.Queue{Size: -1}}
	require.NoError(t, p.Set(balancetest.Endpoints(n, 0, weights...)...))
	return p
}

// take acquires a lease.
func take(t testing.TB, p *balance.Pool, r balance.Request) balance.Lease {
	l, err := p.Acquire(t.Context(), r)
	require.NoError(t, err)
	return l
}

// counts returns how many of n leases, each done at once, each server gets.
func counts(t testing.TB, p *balance.Pool, n int, key uint64) map[string]int {
	got := map[string]int{}
	for range n {
		l := take(t, p, balance.Request{Key: key})
		got[l.Server().Name()]++
		l.Done(balance.Outcome{})
	}
	return got
}

// TestScoredWeighsNumbers holds leases until the costs of all are the same.
func TestScoredWeighsNumbers(t *testing.T) {
	p := scoredPool(t, balance.Scored{Scorers: []balance.Scorer{{Metric: "queue"}, {Metric: "cache", Weight: 20}}}, 4)
	for i, l := range []struct{ queue, cache float64 }{{0, 0}, {10, 0}, {0, 0.5}, {5, 0.75}} {
		p.Server(fmt.Sprint("s", i)).ReportLoad(balance.Load{Name: "queue", Value: l.queue}, balance.Load{Name: "cache", Value: l.cache})
	}
	for range 20 + 10 + 10 { // up to a cost of 20 each, where s3 begins
		take(t, p, balance.Request{})
	}
	for i, want := range []int{20, 10, 10, 0} {
		require.InDelta(t, want, p.Server(fmt.Sprint("s", i)).InFlight(), 1, "s%d", i)
	}
}

// TestScoredKeepsItsLaw compares picks with costs that the test computes: no other server
// would have cost less by more than the request itself.
func TestScoredKeepsItsLaw(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for round := range 200 {
		n := 1 + rng.IntN(12)
		weights := make([]int, n)
		mean := 0.0
		for i := range weights {
			weights[i] = 1 + rng.IntN(5)
			mean += float64(weights[i]) / float64(n)
		}
		affinity := float64(rng.IntN(2) * rng.IntN(8))
		biased := func(_ uint64, s *balance.Server) float64 { return float64(len(s.Name())) }
		p := scoredPool(t, balance.Scored{
			Affinity: affinity,
			Scorers:  []balance.Scorer{{Metric: "a"}, {Metric: "b", Weight: 7}, {Func: biased, Weight: 0.5}},
		}, n, weights...)
		for s := range p.All() {
			for range rng.IntN(10) {
				take(t, p, balance.Request{Prefer: s.Name()})
			}
		}
		cost := func(s *balance.Server, more float64) float64 {
			c := biased(0, s) * 0.5
			for name, weight := range map[string]float64{"a": 1, "b": 7} {
				sum, known := 0.0, 0.0
				for o := range p.All() {
					if l, ok := o.Load(name); ok {
						sum, known = sum+l.Value, known+1
					}
				}
				l, ok := s.Load(name)
				if !ok && known > 0 {
					l.Value = sum / known
				}
				c += weight * l.Value
			}
			return c + (float64(s.InFlight())+more)*mean/float64(s.Endpoint().Weight)
		}
		for pick := range 40 {
			if s := p.Server(fmt.Sprint("s", rng.IntN(n))); rng.IntN(3) == 0 {
				s.ReportLoad(balance.Load{Name: string('a' + rune(rng.IntN(2))), Value: 3 * rng.Float64()})
			}
			var costs []float64
			for s := range p.All() {
				costs = append(costs, cost(s, 1))
			}
			key := uint64(rng.IntN(2)) * rng.Uint64()
			slack := 1e-9
			if key != 0 {
				slack += affinity
			}
			l := take(t, p, balance.Request{Key: key})
			got := cost(l.Server(), 0)
			i := 0
			for s := range p.All() {
				if s != l.Server() && costs[i] < got-mean/float64(l.Server().Endpoint().Weight)-slack {
					t.Fatalf("round %d, pick %d: %s has cost %v; %s has %v with the request", round, pick, l.Server(), got, s, costs[i])
				}
				i++
			}
		}
	}
}

// TestScoredForgetsTheSilent: a server that reported to be idle and then no more gets its
// share by requests only, and so does one that reported to be full.
func TestScoredForgetsTheSilent(t *testing.T) {
	for _, silent := range []float64{0, 100} {
		synctest.Test(t, func(t *testing.T) {
			p := scoredPool(t, balance.Scored{Scorers: []balance.Scorer{{Metric: "queue"}}}, 4)
			others := func() {
				for i := range 3 {
					p.Server(fmt.Sprint("s", i+1)).ReportLoad(balance.Load{Name: "queue", Value: 50})
				}
			}
			p.Server("s0").ReportLoad(balance.Load{Name: "queue", Value: silent})
			others()
			time.Sleep(10 * time.Second)
			others()
			got := counts(t, p, 400, 0)
			if silent == 0 {
				require.Equal(t, 400, got["s0"])
			} else {
				require.Zero(t, got["s0"])
			}
			time.Sleep(time.Nanosecond)
			got = counts(t, p, 400, 0)
			require.InDelta(t, 100, got["s0"], 30, "silent since it reported %v", silent)
		})
	}
}

// TestScoredAllSilent: all are drawn by weight, as without numbers.
func TestScoredAllSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			maxAge time.Duration
			want   float64
		}{{0, 100}, {time.Minute, 100}, {2 * time.Hour, 0}, {-1, 0}} {
			p := scoredPool(t, balance.Scored{MaxAge: test.maxAge, Scorers: []balance.Scorer{{Metric: "queue"}}}, 4)
			p.Server("s0").ReportLoad(balance.Load{Name: "queue", Value: 9})
			p.Server("s1").ReportLoad(balance.Load{Name: "queue"})
			time.Sleep(time.Hour)
			require.InDelta(t, test.want, counts(t, p, 400, 0)["s0"], 30, "%v", test.maxAge)
		}
	})
}

// TestScoredTies: of servers of the same cost each is as likely as any other, and the same
// seed gives the same picks.
func TestScoredTies(t *testing.T) {
	var before map[string]int
	for range 2 {
		p := scoredPool(t, balance.Scored{Scorers: []balance.Scorer{{Metric: "queue"}}}, 6)
		for s := range p.All() {
			s.ReportLoad(balance.Load{Name: "queue", Value: 5})
		}
		p.Server("s0").ReportLoad(balance.Load{Name: "queue", Value: 50})
		got := counts(t, p, 5000, 0)
		for i := range 5 {
			require.InDelta(t, 1000, got[fmt.Sprint("s", i+1)], 120)
		}
		if before != nil {
			require.Equal(t, before, got)
		}
		before = got
	}
}

// TestScoredAffinity: a key stays at its server until that has too many requests more, and
// then goes to the same second one.
func TestScoredAffinity(t *testing.T) {
	p := scoredPool(t, balance.Scored{Affinity: 8}, 10)
	for k := range 50 {
		req := balance.Request{Key: balance.Hash(fmt.Sprint("key", k))}
		var held []balance.Lease
		for range 9 {
			held = append(held, take(t, p, req))
		}
		home := held[0].Server()
		require.Equal(t, 9, home.InFlight())
		second := take(t, p, req)
		require.NotEqual(t, home, second.Server())
		second.Done(balance.Outcome{})
		for range 3 {
			again := take(t, p, req)
			require.Equal(t, second.Server(), again.Server())
			again.Done(balance.Outcome{})
		}
		for _, l := range held {
			l.Done(balance.Outcome{})
		}
	}
	require.NoError(t, p.Set(balancetest.Endpoints(9, 0)...)) // one goes
	before := map[int]string{}
	for k := range 200 {
		for name := range counts(t, p, 1, balance.Hash(fmt.Sprint("key", k))) {
			before[k] = name
		}
	}
	p.Server("s3").Report(balance.Check, balance.Down, "test")
	for k := range 200 {
		if before[k] != "s3" {
			require.Equal(t, 1, counts(t, p, 1, balance.Hash(fmt.Sprint("key", k)))[before[k]], "key %d has moved", k)
		}
	}
}

// TestScoredByFunc: what is infinite is a last resort, whether others know better or not.
func TestScoredByFunc(t *testing.T) {
	for _, bad := range []float64{math.Inf(1), math.NaN()} {
		p := scoredPool(t, balance.Scored{Scorers: []balance.Scorer{{Func: func(key uint64, s *balance.Server) float64 {
			if s.Name() == "s1" && key != 5 {
				return 0
			}
			return bad
		}}}}, 3)
		require.Equal(t, map[string]int{"s1": 100}, counts(t, p, 100, 0))
		require.Len(t, counts(t, p, 100, 5), 3, "all are bad")
		p.Server("s1").Report(balance.Check, balance.Down, "test")
		require.Len(t, counts(t, p, 100, 0), 2)
	}
}

// TestScoredOfManyServers: beyond 256 a pick looks at some of them, others each time.
func TestScoredOfManyServers(t *testing.T) {
	p := scoredPool(t, balance.Scored{Scorers: []balance.Scorer{{Metric: "queue"}}, Affinity: 20}, 1000)
	for s := range p.All() {
		s.ReportLoad(balance.Load{Name: "queue", Value: 9})
	}
	p.Server("s700").ReportLoad(balance.Load{Name: "queue"})
	require.InDelta(t, 256, counts(t, p, 1000, 0)["s700"], 60)
	require.Len(t, counts(t, p, 10, balance.Hash("key")), 1)
}

func TestScoredWithTheRestOfAPool(t *testing.T) {
	policy := balance.Scored{Scorers: []balance.Scorer{{Metric: "queue", Weight: 2}}, Affinity: 4}
	t.Run("limits", func(t *testing.T) {
		p := &balance.Pool{Policy: policy, Seed: 1, Queue: balance.Queue{Size: -1}}
		require.NoError(t, p.Set(balancetest.Endpoints(3, 2)...))
		p.Server("s0").ReportLoad(balance.Load{Name: "queue", Value: 1000})
		for range 6 {
			take(t, p, balance.Request{Key: 1})
		}
		_, err := p.Acquire(t.Context(), balance.Request{Key: 1})
		require.ErrorIs(t, err, balance.ErrQueueFull)
	})
	t.Run("persistence", func(t *testing.T) {
		p := scoredPool(t, policy, 3)
		p.Server("s1").ReportLoad(balance.Load{Name: "queue", Value: 1000})
		l := take(t, p, balance.Request{Prefer: "s1"})
		require.Equal(t, "s1", l.Server().Name())
	})
	t.Run("slow start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &balance.Pool{Policy: policy, Seed: 1, SlowStart: balance.SlowStart{Window: time.Minute}}
			require.NoError(t, p.Set(balancetest.Endpoints(2, 0)...))
			time.Sleep(time.Hour)
			p.Server("s1").Report(balance.Check, balance.Down, "test")
			p.Server("s1").Report(balance.Check, balance.Up, "")
			var held []balance.Lease
			for range 110 {
				held = append(held, take(t, p, balance.Request{}))
			}
			require.InDelta(t, 10, p.Server("s1").InFlight(), 2)
			for _, l := range held {
				l.Done(balance.Outcome{})
			}
			time.Sleep(time.Hour)
		})
	})
}

func TestScoredDoesNotAllocate(t *testing.T) {
	p := scoredPool(t, balance.Scored{Affinity: 2, Scorers: []balance.Scorer{
		{Metric: "queue"}, {Metric: "cache"}, {Func: func(_ uint64, s *balance.Server) float64 {
			l, _ := s.Load("queue")
			return l.Value
		}},
	}}, 40)
	p.Server("s3").ReportLoad(balance.Load{Name: "queue", Value: 4})
	for _, key := range []uint64{0, 5} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			l, _ := p.Acquire(t.Context(), balance.Request{Key: key})
			l.Done(balance.Outcome{})
		}))
	}
}

func BenchmarkScored(b *testing.B) {
	for _, n := range []int{4, 16, 64, 256, 4096} {
		for _, test := range []struct {
			name   string
			policy balance.Policy
		}{
			{"LeastConn", balance.LeastConn{}},
			{"Scored by requests", balance.Scored{}},
			{"Scored by two numbers", balance.Scored{Scorers: []balance.Scorer{{Metric: "queue"}, {Metric: "cache", Weight: 20}}}},
			{"Scored by two numbers and key", balance.Scored{Affinity: 8, Scorers: []balance.Scorer{{Metric: "queue"}, {Metric: "cache", Weight: 20}}}},
		} {
			b.Run(fmt.Sprint(n, "/", test.name), func(b *testing.B) {
				p := scoredPool(b, test.policy, n)
				for s := range p.All() {
					s.ReportLoad(balance.Load{Name: "queue", Value: 1}, balance.Load{Name: "cache", Value: 1})
					take(b, p, balance.Request{Prefer: s.Name()}) // none is idle
				}
				b.ReportAllocs()
				for b.Loop() {
					take(b, p, balance.Request{Key: 5}).Done(balance.Outcome{})
				}
			})
		}
	}
}
