// SPDX-License-Identifier: Apache-2.0

// Package balancetest checks that a [balance.Policy] does what a pool and its users
// rely on. A host runs it on its own algorithm:
//
//	func TestMine(t *testing.T) {
//		balancetest.TestPolicy(t, Mine{}, balancetest.Law{Share: 0.1})
//	}
//
// A policy that goes by zones or labels is given some by Law.Endpoint.
//
// The subtests are what it checks: only usable servers are picked, and none twice while
// others are left to try; no limit is exceeded, and no Bound of the picker while another
// server is within it; a pick allocates nothing, and many may run at once; shares follow the
// weights. If Law.Keyed is set, a key also stays with its server when the order of Set
// changes or another server leaves.
//
// Run it with the race detector as well: it picks from many goroutines at once. Most of the
// time goes into shares with little in flight, which one goroutine finds out; -short leaves
// that out.
package balancetest

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A Law is what a policy promises beyond what every policy must do.
type Law struct {
	// Share is how far the part of the work that a server gets may be from its part of
	// the weights, relative to that: 0.1 is a tenth. 0 means that weights do not count. While leases are
	// in flight a third is allowed in any case, and more where picks are few.
	Share float64
	// Keyed says that the pick follows from the key.
	Keyed bool
	// Moved is the part of the keys of servers that stay which may move when another
	// one leaves; 0 means none. It counts if Keyed is set.
	Moved float64
	// Seed is that of the pool; 0 means 1.
	Seed uint64
	// Endpoint returns what the policy goes by in the i-th endpoint of a pool: its Zone,
	// Labels and Value count, the tests set the rest. Nil means that all have none of these.
	// If the policy prefers some, leave Share at 0.
	Endpoint func(i int) balance.Endpoint
}

// TestPolicy runs the suite. Each part is a subtest.
func TestPolicy(t *testing.T, policy balance.Policy, law Law) {
	s := suite{policy: policy, law: law}
	t.Run("only usable servers", s.usable)
	t.Run("every server once when all are avoided in turn", s.avoid)
	t.Run("never over a limit", s.limits)
	t.Run("never over its Bound while another server is within it", s.bounds)
	t.Run("no allocation", s.allocs)
	t.Run("many at once", s.parallel)
	t.Run("one server", s.single)
	t.Run("shares follow weights", s.shares)
	t.Run("shares follow weights with little in flight", s.light)
	if law.Keyed {
		t.Run("same key same server", s.sameKey)
		t.Run("order of Set does not matter", s.order)
		t.Run("a leaving server moves its own keys", s.leave)
		t.Run("no key is shared out", s.keyless)
	}
}

type suite struct {
	policy balance.Policy
	law    Law
}

// pool returns a pool of n servers; weights repeat.
func (s suite) pool(t testing.TB, n, maxConns int, weights ...int) *balance.Pool {
	t.Helper()
	p := s.unset()
	set(t, p, s.endpoints(n, maxConns, weights...))
	return p
}

// endpoints returns those of a pool, with what the law adds.
func (s suite) endpoints(n, maxConns int, weights ...int) []balance.Endpoint {
	eps := Endpoints(n, maxConns, weights...)
	if s.law.Endpoint != nil {
		for i := range eps {
			e := s.law.Endpoint(i)
			eps[i].Zone, eps[i].Labels, eps[i].Value = e.Zone, e.Labels, e.Value
		}
	}
	return eps
}

// unset returns a pool without servers.
func (s suite) unset() *balance.Pool {
	return &balance.Pool{Policy: s.policy, Seed: max(s.law.Seed, 1), Queue: balance.Queue{Size: -1}}
}

// Endpoints returns n endpoints; weights repeat, and are 1 if there are none.
func Endpoints(n, maxConns int, weights ...int) []balance.Endpoint {
	eps := make([]balance.Endpoint, n)
	for i := range eps {
		eps[i] = balance.Endpoint{Name: fmt.Sprintf("s%d", i), Addr: fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255), MaxConns: maxConns}
		if len(weights) > 0 {
			eps[i].Weight = weights[i%len(weights)]
		}
	}
	return eps
}

func set(t testing.TB, p *balance.Pool, eps []balance.Endpoint) {
	t.Helper()
	if err := p.Set(eps...); err != nil {
		t.Fatalf("Set: %v", err)
	}
}

// key returns the i-th of many keys.
func key(i int) balance.Request {
	return balance.Request{Key: balance.Hash(fmt.Sprint("key ", i))}
}

// done ends a lease as a server does that answers in 10 ms.
func done(l balance.Lease) {
	l.Done(balance.Outcome{Class: balance.OK, Latency: 10 * time.Millisecond, At: time.Unix(1e9, 0)})
}

// warm uses every server, so that policies that measure have measured.
func warm(t testing.TB, p *balance.Pool) {
	for s := range p.All() {
		l, err := p.Acquire(context.Background(), balance.Request{Prefer: s.Name()})
		if err != nil {
			t.Fatalf("Acquire(Prefer: %s): %v", s.Name(), err)
		}
		done(l)
	}
}

// idle fails unless nothing is in flight.
func idle(t testing.TB, p *balance.Pool) {
	t.Helper()
	for s := range p.All() {
		if n := s.InFlight(); n != 0 {
			t.Errorf("%s has %d in flight at the end; want 0", s, n)
		}
	}
}

func (s suite) usable(t *testing.T) {
	p := s.pool(t, 12, 0, 1, 2, 3)
	for i, srv := range numbered(p) {
		switch i % 6 {
		case 1:
			srv.Report(balance.Check, balance.Down, "test")
		case 2:
			srv.SetAdmin(balance.Drain, "test")
		case 3:
			srv.SetAdmin(balance.Maint, "test")
		case 4:
			if err := srv.SetWeight(0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 1000 {
		l, err := p.Acquire(context.Background(), key(i))
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		if !l.Server().Usable() {
			t.Fatalf("picked %s, which is %v", l.Server(), l.Server().State())
		}
		done(l)
	}
	idle(t, p)
}

// numbered yields the members of p with their number.
func numbered(p *balance.Pool) func(func(int, *balance.Server) bool) {
	return func(yield func(int, *balance.Server) bool) {
		i := 0
		for s := range p.All() {
			if !yield(i, s) {
				return
			}
			i++
		}
	}
}

func (s suite) avoid(t *testing.T) {
	const n = 9
	p := s.pool(t, n, 0, 1, 5)
	for round := range 20 {
		req := key(round)
		seen := make(map[*balance.Server]bool)
		for range n {
			l, err := p.Acquire(context.Background(), req)
			if err != nil {
				t.Fatalf("after %d tries: %v", len(seen), err)
			}
			if seen[l.Server()] {
				t.Fatalf("%s was picked again although it was to be avoided", l.Server())
			}
			seen[l.Server()] = true
			req.Avoid(l.Server())
			done(l)
		}
		if l, err := p.Acquire(context.Background(), req); err == nil {
			t.Fatalf("picked %s when all had been tried; want an error", l.Server())
		}
	}
	idle(t, p)
}

// limits counts from the outside how many leases each server has at once.
func (s suite) limits(t *testing.T) {
	const n, maxConns = 5, 3
	p := s.pool(t, n, maxConns)
	var held [n]atomic.Int64
	number := make(map[*balance.Server]int)
	for i, srv := range numbered(p) {
		number[srv] = i
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				l, err := p.Acquire(context.Background(), key(g*1000+i))
				if err != nil {
					runtime.Gosched()
					continue
				}
				at := &held[number[l.Server()]]
				if now := at.Add(1); now > maxConns {
					t.Errorf("%s has %d leases; its limit is %d", l.Server(), now, maxConns)
				}
				runtime.Gosched()
				at.Add(-1)
				done(l)
			}
		})
	}
	wg.Wait()
	idle(t, p)

	// All slots can be had, and no more.
	var leases []balance.Lease
	for i := range n * maxConns {
		l, err := p.Acquire(context.Background(), key(i))
		if err != nil {
			t.Fatalf("%d of %d slots are taken, yet: %v", i, n*maxConns, err)
		}
		leases = append(leases, l)
	}
	if l, err := p.Acquire(context.Background(), key(0)); err == nil {
		t.Errorf("%s was picked when all servers were full", l.Server())
	}
	for _, l := range leases {
		done(l)
	}
	idle(t, p)
}

func (s suite) allocs(t *testing.T) {
	for _, n := range []int{3, 300} {
		p := s.pool(t, n, 10, 1, 2)
		warm(t, p)
		req, ctx := key(1), context.Background()
		if n := testing.AllocsPerRun(1000, func() {
			if l, err := p.Acquire(ctx, req); err == nil {
				done(l)
			}
		}); n > 0 {
			t.Errorf("Acquire and Done allocate %v times; want 0", n)
		}
	}
}

// parallel changes states while others pick.
func (s suite) parallel(t *testing.T) {
	p := s.pool(t, 20, 0, 1, 2, 3)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				if l, err := p.Acquire(context.Background(), key(g+i)); err != nil {
					t.Errorf("Acquire: %v", err)
				} else {
					done(l)
				}
			}
		})
	}
	for i, srv := range numbered(p) {
		if i > 0 { // one always stays
			srv.Report(balance.Check, balance.Health(i%3), "test")
			if err := srv.SetWeight(i); err != nil {
				t.Error(err)
			}
		}
	}
	wg.Wait()
	idle(t, p)
}

func (s suite) single(t *testing.T) {
	p := s.pool(t, 1, 0)
	for i := range 10 {
		l, err := p.Acquire(context.Background(), key(i))
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		done(l)
	}
	idle(t, p)
}

// hold takes n leases without giving one back, as policies that go by load show their
// shares only then. It returns how many each server has.
func (s suite) hold(t *testing.T, p *balance.Pool, n int, request func(int) balance.Request) {
	t.Helper()
	var leases []balance.Lease
	for i := range n {
		l, err := p.Acquire(context.Background(), request(i))
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		leases = append(leases, l)
	}
	sum := 0
	for _, srv := range numbered(p) {
		sum += srv.Endpoint().Weight
	}
	worst := 0.0
	for _, srv := range numbered(p) {
		want := float64(n) * float64(srv.Endpoint().Weight) / float64(sum)
		got := float64(srv.InFlight())
		worst = max(worst, math.Abs(got-want)/want)
		if math.Abs(got-want) > s.law.Share*want {
			t.Errorf("%s got %v of %d; want %.0f within %v", srv, got, n, want, s.law.Share)
		}
	}
	t.Logf("of %d picks each server got its part by weight, give or take %.1f %%", n, 100*worst)
	for _, l := range leases {
		done(l)
	}
	idle(t, p)
}

func (s suite) shares(t *testing.T) {
	if s.law.Share == 0 {
		t.Skip("weights do not count")
	}
	for _, weights := range [][]int{{1}, {1, 2, 3}, {5, 1, 1}, {10, 7, 3}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			p := s.pool(t, 6, 0, weights...)
			warm(t, p)
			s.hold(t, p, 30000, key)
		})
	}
	t.Run("changed at run time", func(t *testing.T) {
		p := s.pool(t, 6, 0)
		warm(t, p)
		set(t, p, s.endpoints(6, 0, 1, 4))
		s.hold(t, p, 30000, key)
	})
}
