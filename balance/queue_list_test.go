// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// fairness plays arrivals and services on a waitList and checks what is promised.
type fairness struct {
	t       *testing.T
	list    waitList
	number  uint64
	weights []int
	waiting []int           // by tenant
	served  []int           // by tenant, since the pairs were last reset
	since   [][][2]int      // of two tenants that both wait ever since: what each had been served then
	bound   map[*waiter]int // services that may come before this one, which was alone of its tenant
}

func newFairness(t *testing.T, weights ...int) *fairness {
	f := &fairness{t: t, weights: weights, waiting: make([]int, len(weights)), served: make([]int, len(weights)), bound: make(map[*waiter]int)}
	f.since = make([][][2]int, len(weights))
	for i := range f.since {
		f.since[i] = make([][2]int, len(weights))
	}
	return f
}

// arrive has a request of a tenant enter the queue.
func (f *fairness) arrive(tenant int) *waiter {
	f.number++
	w := &waiter{tenant: uint64(tenant), weight: f.weights[tenant], number: f.number}
	if f.waiting[tenant]++; f.waiting[tenant] == 1 {
		others := 0
		for i, n := range f.waiting {
			if i != tenant && n > 0 {
				others += f.weights[i]
			}
			f.since[i][tenant], f.since[tenant][i] = [2]int{f.served[i], f.served[tenant]}, [2]int{f.served[tenant], f.served[i]}
		}
		f.bound[w] = others
	}
	f.list.insert(w)
	return w
}

func (f *fairness) leave(w *waiter) {
	f.list.remove(w)
	f.waiting[w.tenant]--
	delete(f.bound, w)
}

// serve gives a slot to the first in line.
func (f *fairness) serve() *waiter {
	w := f.list.front()
	f.list.served(w, f.number)
	f.leave(w)
	f.served[w.tenant]++
	for other, n := range f.bound {
		require.Positive(f.t, n, "a request of tenant %d waits for more than a turn of each other tenant", other.tenant)
		f.bound[other]--
	}
	for i := range f.weights {
		for j := range i {
			if f.waiting[i] > 0 && f.waiting[j] > 0 {
				was := f.since[i][j]
				turns := func(tenant, before int) float64 {
					return float64(f.served[tenant]-before) / float64(f.weights[tenant])
				}
				require.InDelta(f.t, turns(i, was[0]), turns(j, was[1]), 2-1e-9, "turns of tenants %d and %d", i, j)
			}
		}
	}
	return w
}

// TestQueueIsFair has tenants with all kinds of habits, one of whom floods the queue.
func TestQueueIsFair(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		weights := make([]int, 2+rng.IntN(6))
		for i := range weights {
			weights[i] = 1 + rng.IntN(4)
		}
		f := newFairness(t, weights...)
		var line []*waiter
		for range 300 {
			switch op := rng.IntN(10); {
			case op < 2:
				for range rng.IntN(8) {
					line = append(line, f.arrive(0))
				}
			case op < 5:
				line = append(line, f.arrive(rng.IntN(len(weights))))
			case op == 5 && len(line) > 0: // one gives up
				if w := line[rng.IntN(len(line))]; w.list != nil {
					f.leave(w)
				}
			case f.list.n > 0:
				f.serve()
			}
			wellFormed(t, &f.list)
		}
		require.Equal(t, slices.Max(append(f.waiting, 0)) > 0, f.list.n > 0, "seed %d", seed)
	}
}

// wellFormed checks that what l links is what it counts, in the order it promises.
func wellFormed(t *testing.T, l *waitList) {
	n, lanes := 0, make(map[laneKey]*lane)
	priority, place := math.MinInt, uint64(0)
	for w := l.front(); w != nil; w = w.after() {
		n++
		q := w.lane
		if w.prev != nil && w.prev.number >= w.number {
			t.Fatalf("waiter %d behind %d", w.number, w.prev.number)
		}
		if w.prev == nil {
			if w.priority < priority || w.priority == priority && q.place <= place {
				t.Fatalf("priority %d, place %d behind %d, %d", w.priority, q.place, priority, place)
			}
			priority, place = w.priority, q.place
		}
		if w.list != l {
			t.Fatalf("waiter %d is of another list", w.number)
		}
		if c := q.class; c.priority != w.priority || c.byLoad[q.at] != q || q.at > 0 && q.precedes(c.byLoad[(q.at-1)/2]) {
			t.Fatalf("tenant %d is not where it is by its load", w.tenant)
		}
		lanes[q.laneKey] = q
	}
	require.Equal(t, l.n, n)
	require.True(t, maps.Equal(lanes, l.lanes))
	for c := l.classes.first; c != nil; c = c.next {
		n -= len(c.byLoad)
		require.NotEmpty(t, c.byLoad)
	}
	require.Equal(t, l.n-len(lanes), n)
}

// naiveExcess looks at all lanes.
func naiveExcess(l *waitList, w *waiter) *waiter {
	var lanes []*lane
	for o := l.front(); o != nil; o = o.after() {
		if o.prev == nil {
			lanes = append(lanes, o.lane)
		}
	}
	most, out := w.lane, w
	for _, q := range slices.Backward(lanes) {
		if q.priority >= w.priority && q.tenant != w.tenant && int64(q.n)*int64(most.weight) > int64(most.n)*int64(q.weight) {
			most, out = q, q.waiters.last
		}
	}
	return out
}

// TestQueueExcessIsNaive: whatever has happened, the one that leaves is found as by a look
// at all lanes.
func TestQueueExcessIsNaive(t *testing.T) {
	others := 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tenants, classes, most := 1+rng.IntN(30), 1+rng.IntN(4), 1+rng.IntN(60)
		var l waitList
		var line []*waiter
		for number := range uint64(400) {
			switch op := rng.IntN(8); {
			case op < 5:
				w := &waiter{tenant: uint64(rng.IntN(tenants)), priority: rng.IntN(classes), weight: rng.IntN(4), number: 2 * (number + 16)}
				if rng.IntN(4) == 0 {
					w.number -= 31 // handed on from another queue
				}
				l.insert(w)
				line = append(line, w)
				if l.n > most {
					want, got := naiveExcess(&l, w), l.excess(w)
					require.Same(t, want, got, "seed %d", seed)
					l.remove(got)
					if got != w {
						others++
					}
				}
			case op < 7 && l.n > 0:
				w := l.front()
				l.served(w, 2*(number+16))
				l.remove(w)
			case len(line) > 0:
				if w := line[rng.IntN(len(line))]; w.list != nil {
					l.remove(w)
				}
			}
			wellFormed(t, &l)
		}
	}
	require.Greater(t, others, 1000)
}

// BenchmarkQueueFull is an arrival at a full queue, of a tenant of whom another has more,
// and the departure of that one.
func BenchmarkQueueFull(b *testing.B) {
	for _, tenants := range []int{10, 1000, 10_000} {
		b.Run(strconv.Itoa(tenants), func(b *testing.B) {
			var l waitList
			waiters := make([]waiter, 2*tenants+1)
			number := uint64(0)
			enter := func(w *waiter) {
				number++
				w.number, w.tenant, w.weight = number, number*7919%uint64(tenants), 1
				l.insert(w)
			}
			for i := range waiters {
				enter(&waiters[i])
			}
			b.ReportAllocs()
			for b.Loop() {
				w := l.front()
				l.served(w, number)
				l.remove(w)
				enter(w)
				out := l.excess(w)
				l.remove(out)
				enter(out)
			}
		})
	}
}

// TestQueueShared: a tenant with three times the weight of another gets three times as
// many of the slots, and its class comes before others.
func TestQueueShared(t *testing.T) {
	f := newFairness(t, 3, 1)
	for range 400 {
		f.arrive(0)
		f.arrive(1)
	}
	for range 400 {
		f.serve()
	}
	require.Equal(t, []int{300, 100}, f.served)
	urgent := &waiter{tenant: 1, weight: 1, priority: -1, number: 1e6}
	f.list.insert(urgent)
	require.Same(t, urgent, f.list.front())
}

// TestQueueExcess is about which waiter leaves a full list.
func TestQueueExcess(t *testing.T) {
	enter := func(l *waitList, tenant uint64, priority, weight int) *waiter {
		w := &waiter{tenant: tenant, priority: priority, weight: weight, number: uint64(l.n + 1)}
		l.insert(w)
		return w
	}
	t.Run("the tenant with most", func(t *testing.T) {
		var l waitList
		enter(&l, 1, 0, 1)
		newest := enter(&l, 1, 0, 1)
		w := enter(&l, 2, 0, 1)
		require.Same(t, newest, l.excess(w))
	})
	t.Run("the newcomer, as nobody has more", func(t *testing.T) {
		var l waitList
		enter(&l, 1, 0, 1)
		w := enter(&l, 2, 0, 1)
		require.Same(t, w, l.excess(w))
	})
	t.Run("most by weight", func(t *testing.T) {
		var l waitList
		enter(&l, 1, 0, 2)
		enter(&l, 1, 0, 2)
		w := enter(&l, 2, 0, 1)
		require.Same(t, w, l.excess(w))
	})
	t.Run("most by the greatest weights", func(t *testing.T) {
		for _, weight := range []int{1e6, math.MaxInt32, math.MaxInt} {
			var l waitList
			for range 3 {
				enter(&l, 1, 0, weight)
			}
			enter(&l, 2, 0, 1)
			newest := enter(&l, 2, 0, 1)
			w := enter(&l, 1, 0, weight)
			require.Same(t, newest, l.excess(w), "weight %d", weight)
			l.remove(w)
			w = enter(&l, 3, 0, 1)
			require.Same(t, newest, l.excess(w), "weight %d", weight)
		}
	})
	t.Run("none of a class before", func(t *testing.T) {
		var l waitList
		enter(&l, 1, -1, 1)
		enter(&l, 1, -1, 1)
		w := enter(&l, 2, 0, 1)
		require.Same(t, w, l.excess(w))
	})
	t.Run("none without tenants", func(t *testing.T) {
		var l waitList
		enter(&l, 0, 1, 1)
		enter(&l, 0, 1, 1)
		w := enter(&l, 0, 0, 1)
		require.Same(t, w, l.excess(w))
	})
}

// TestQueueAllocates: lanes are used again.
func TestQueueAllocates(t *testing.T) {
	var l waitList
	w := &waiter{weight: 1, number: 1}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		l.insert(w)
		l.served(w, 1)
		l.remove(w)
	}))
}
