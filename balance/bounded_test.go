// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// bounded are the policies with a bound of 1.25.
func bounded() []Policy {
	return []Policy{Ring{Bound: 1.25}, Maglev{Bound: 1.25, Size: 1009}, Rendezvous{Bound: 1.25}}
}

// crowd is a pool with a bound, seen from the outside. It runs in a bubble.
type crowd struct {
	t      *testing.T
	pool   *Pool
	leases []Lease
	fresh  chan Lease
	wait   int // requests without an answer
}

// enter asks for a server in the background.
func (c *crowd) enter(req Request) {
	c.wait++
	go func() {
		l, err := c.pool.Acquire(context.Background(), req)
		if err != nil {
			c.t.Errorf("Acquire: %v", err)
		}
		c.fresh <- l
	}()
}

// leave ends lease i.
func (c *crowd) leave(i int) {
	c.leases[i].Done(Outcome{})
	c.leases = append(c.leases[:i], c.leases[i+1:]...)
}

// settle takes in the leases that came, and returns them.
func (c *crowd) settle() []Lease {
	synctest.Wait()
	var came []Lease
	for len(c.fresh) > 0 {
		came = append(came, <-c.fresh)
	}
	c.wait -= len(came)
	c.leases = append(c.leases, came...)
	return came
}

// most returns the bound of s, when there are n leases besides the one that s is to
// take.
func (c *crowd) most(s *Server, n int) int {
	sum := 0
	for o := range c.pool.All() {
		sum += o.Endpoint().Weight
	}
	return max(1, ceilDiv(ceilDiv((n+1)*5, 4)*s.Endpoint().Weight, sum))
}

// check wants the law kept by the last lease, on s: it is within the bound, or no
// server within its own has room.
func (c *crowd) check(s *Server) {
	before := len(c.leases) - 1
	if s.InFlight() <= c.most(s, before) {
		return
	}
	for o := range c.pool.All() {
		limit := o.Endpoint().MaxConns
		if o != s && (limit == 0 || o.InFlight() < limit) && o.InFlight() < c.most(o, before) {
			c.t.Fatalf("%s has %d of %d leases, %s only %d and room", s, s.InFlight(), len(c.leases), o, o.InFlight())
		}
	}
}

// TestBoundWithLimits has limits beside the bound, so that requests wait and the bound
// may have to give way.
func TestBoundWithLimits(t *testing.T) {
	for _, policy := range bounded() {
		for onFull := range WaitOrGoOn + 1 {
			t.Run(fmt.Sprintf("%T/%d", policy, onFull), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rng := rand.New(rand.NewPCG(uint64(onFull), 2))
					c := &crowd{t: t, fresh: make(chan Lease, 100), pool: &Pool{Policy: policy, WhenFull: onFull, Queue: Queue{Timeout: -1}}}
					var eps []Endpoint
					for i, limit := range []int{1, 2, 4, 9, 3, 30} {
						eps = append(eps, Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 1 + i%3, MaxConns: limit})
					}
					require.NoError(t, c.pool.Set(eps...))
					beyond, waited := 0, 0
					for range 1500 {
						if len(c.leases) > 0 && (rng.IntN(100) < 45 || c.wait > 10) {
							c.leave(rng.IntN(len(c.leases)))
						} else {
							c.enter(Request{Key: 1 + rng.Uint64N(3)})
						}
						for _, l := range c.settle() { // one at most
							if l.Queued() {
								waited++
							}
							if l.Queued() && onFull != GoOn {
								continue // it waited for this one and no other
							}
							c.check(l.s)
							if l.s.InFlight() > c.most(l.s, len(c.leases)-1) {
								beyond++
							}
						}
					}
					require.NotZero(t, waited)
					require.True(t, beyond > 0 || onFull != GoOn, "the bound has to give way at times")
					for len(c.leases) > 0 {
						c.leave(0)
						c.settle()
					}
					require.Zero(t, c.wait)
				})
			})
		}
	}
}

// TestBoundOfWaiters makes room at several servers at once for those who wait.
func TestBoundOfWaiters(t *testing.T) {
	for _, policy := range append(bounded(), LeastConn{}) {
		t.Run(fmt.Sprintf("%T", policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &crowd{t: t, fresh: make(chan Lease, 100), pool: &Pool{Policy: policy, Queue: Queue{Timeout: -1}}}
				eps := []Endpoint{{Name: "a", Addr: "h:1", MaxConns: 1}, {Name: "b", Addr: "h:1", MaxConns: 1}, {Name: "c", Addr: "h:1", MaxConns: 1}}
				require.NoError(t, c.pool.Set(eps...))
				for range 30 {
					c.enter(Request{Key: 7})
				}
				require.Len(t, c.settle(), 3)
				for i := range eps {
					eps[i].MaxConns = 100
				}
				require.NoError(t, c.pool.Set(eps...))
				require.Len(t, c.settle(), 27)
				for s := range c.pool.All() {
					require.LessOrEqual(t, s.InFlight(), 13, "%s has its part of 30, times 1.25", s)
				}
				for len(c.leases) > 0 {
					c.leave(0)
				}
			})
		})
	}
}

// TestBoundContended counts from the outside while many pick the same key at once. At
// no time are there more leases than goroutines; one that begins and one that ends at
// the same moment may both count, which makes twice as many at most.
func TestBoundContended(t *testing.T) {
	const goroutines = 12
	for _, policy := range bounded() {
		t.Run(fmt.Sprintf("%T", policy), func(t *testing.T) {
			p := &Pool{Policy: policy}
			eps := make([]Endpoint, 4)
			for i := range eps {
				eps[i] = Endpoint{Name: fmt.Sprint(i), Addr: "h:1"}
			}
			require.NoError(t, p.Set(eps...))
			held := make(map[*Server]*atomic.Int64)
			for s := range p.All() {
				held[s] = new(atomic.Int64)
			}
			var worst atomic.Int64
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					for i := range 4000 {
						l, err := p.Acquire(context.Background(), Request{Key: 42})
						if err != nil {
							t.Errorf("Acquire: %v", err)
							return
						}
						n := held[l.s].Add(1)
						for w := worst.Load(); n > w && !worst.CompareAndSwap(w, n); w = worst.Load() {
						}
						if (i+g)%3 == 0 {
							runtime.Gosched()
						}
						held[l.s].Add(-1)
						l.Done(Outcome{})
					}
				})
			}
			wg.Wait()
			t.Logf("%d of %d leases at once on one of 4 servers", worst.Load(), goroutines)
			require.LessOrEqual(t, worst.Load(), int64(ceilDiv(2*goroutines*5, 4*4)))
			require.Zero(t, p.Stats().InFlight)
			require.Zero(t, p.snap.Load().groups[0].bound.(*boundedPicker).total.Load())
		})
	}
}

// TestBoundedTurnsAreSharedOut has requests without a key find servers at their bound:
// what those cannot take goes to all others by weight, not to the next in line, which
// is the lightest here.
func TestBoundedTurnsAreSharedOut(t *testing.T) {
	for _, policy := range bounded() {
		p := &Pool{Policy: policy, Seed: 1}
		weights := []int{20, 10, 5, 5, 1}
		endpoints := make([]Endpoint, len(weights))
		for i, w := range weights {
			endpoints[i] = Endpoint{Addr: fmt.Sprintf("s%d:1", i), Weight: w}
		}
		require.NoError(t, p.Set(endpoints...))
		rng := rand.New(rand.NewPCG(1, 2))
		var leases []Lease
		last, picks := 0, 20500
		for range picks {
			l, err := p.Acquire(t.Context(), Request{})
			require.NoError(t, err)
			if l.Server().Name() == "s4:1" {
				last++
			}
			if leases = append(leases, l); len(leases) == 5 {
				i := rng.IntN(len(leases))
				leases[i].Done(Outcome{})
				leases = append(leases[:i], leases[i+1:]...)
			}
		}
		require.InDelta(t, picks/41, last, float64(picks)/41/2, "%T", policy)
	}
}
