// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"runtime"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

func Example() {
	pool := &balance.Pool{Policy: balance.RoundRobin{}}
	if err := pool.Set(
		balance.Endpoint{Name: "a", Addr: "10.0.0.1:80", Weight: 3},
		balance.Endpoint{Name: "b", Addr: "10.0.0.2:80"},
	); err != nil {
		fmt.Println(err)
		return
	}
	for range 4 {
		lease, err := pool.Acquire(context.Background(), balance.Request{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(lease.Server().Name(), lease.Server().Addr())
		lease.Done(balance.Outcome{Class: balance.OK, Latency: 3 * time.Millisecond})
	}
	// Output:
	// a 10.0.0.1:80
	// a 10.0.0.1:80
	// b 10.0.0.2:80
	// a 10.0.0.1:80
}

// A failed try is repeated on another server, as far as the budget allows.
func ExampleRequest_Avoid() {
	pool := &balance.Pool{Policy: balance.First{}}
	_ = pool.Set(balance.Endpoint{Name: "a", Addr: "a:80"}, balance.Endpoint{Name: "b", Addr: "b:80"})
	dial := func(s *balance.Server) error {
		if s.Name() == "a" {
			return errors.New("connection refused")
		}
		return nil
	}
	var req balance.Request
	for {
		lease, err := pool.Acquire(context.Background(), req)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err = dial(lease.Server()); err == nil {
			fmt.Println("connected to", lease.Server())
			lease.Done(balance.Outcome{Class: balance.OK})
			return
		}
		fmt.Println(lease.Server(), err)
		lease.Done(balance.Outcome{Class: balance.ConnectFailed, Err: err})
		req.Avoid(lease.Server())
		retry, ok := pool.TryRetry()
		if !ok {
			fmt.Println("too many retries going on")
			return
		}
		defer retry.Done()
	}
	// Output:
	// a connection refused
	// connected to b
}

// An algorithm of one's own: the server with the shortest name.
func ExamplePolicyFunc() {
	shortest := balance.PolicyFunc(func(v balance.View) balance.Picker { return byLength(v.Servers) })
	pool := &balance.Pool{Policy: shortest}
	_ = pool.Set(balance.Endpoint{Name: "long", Addr: "a:80"}, balance.Endpoint{Name: "b", Addr: "b:80"})
	lease, _ := pool.Acquire(context.Background(), balance.Request{})
	fmt.Println(lease.Server())
	lease.Done(balance.Outcome{})
	// Output: b
}

type byLength []*balance.Server

func (p byLength) Pick(_ uint64, f balance.Filter) *balance.Server {
	var best *balance.Server
	for _, s := range p {
		if f.Allows(s) && (best == nil || len(s.Name()) < len(best.Name())) {
			best = s
		}
	}
	return best
}

func ExamplePool_Explain() {
	pool := &balance.Pool{}
	_ = pool.Set(balance.Endpoint{Name: "a", Addr: "a:80"}, balance.Endpoint{Name: "b", Addr: "b:80"})
	pool.Server("a").Report(balance.Check, balance.Down, "connect refused, 3 of 3")
	for _, e := range pool.Explain() {
		fmt.Println(e)
	}
	// Output:
	// a: not used: check says down: connect refused, 3 of 3
	// b: used
}

func ExamplePool_WithPolicy() {
	pool := &balance.Pool{Policy: balance.RoundRobin{}}
	if err := pool.Set(balance.Endpoint{Addr: "a:80"}, balance.Endpoint{Addr: "b:80"}); err != nil {
		panic(err)
	}
	sessions := pool.WithPolicy(balance.Rendezvous{}) // the same servers, by key
	for range 2 {
		in, _ := pool.Acquire(context.Background(), balance.Request{})
		by, _ := sessions.Acquire(context.Background(), balance.Request{Key: balance.Hash("ann")})
		fmt.Println(in.Server().Name(), by.Server().Name(), by.Server().InFlight() > 0)
		in.Done(balance.Outcome{})
		by.Done(balance.Outcome{})
	}
	// Output:
	// a:80 a:80 true
	// b:80 a:80 true
}

func ExamplePool_Subset() {
	pool := &balance.Pool{Policy: balance.RoundRobin{}}
	canary := pool.Subset(func(e balance.Endpoint) bool { return e.Labels["version"] == "2" })
	_ = pool.Set(
		balance.Endpoint{Name: "old", Addr: "a:80"},
		balance.Endpoint{Name: "new", Addr: "b:80", Labels: map[string]string{"version": "2"}},
	)
	lease, _ := canary.Acquire(context.Background(), balance.Request{})
	fmt.Println(lease.Server())
	lease.Done(balance.Outcome{})
	// Output: new
}

func ExampleServer_Drain() {
	pool := &balance.Pool{}
	_ = pool.Set(balance.Endpoint{Name: "a", Addr: "a:80"})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := pool.Server("a")
	if err := s.Drain(ctx); err != nil {
		s.Cut(true, "drain deadline")
	}
	fmt.Println(s.State(), s.InFlight())
	// Output: drain 0
}

// Before a deploy: in Drain persistent clients still come, in Maint they do not, and what is in
// flight goes on.
func ExampleServer_WaitIdle() {
	pool := &balance.Pool{}
	_ = pool.Set(balance.Endpoint{Name: "a", Addr: "a:80"}, balance.Endpoint{Name: "b", Addr: "b:80"})
	sticky := balance.Request{Prefer: "a"} // as l7.Persist and l7.Stick ask
	ctx := context.Background()
	a := pool.Server("a")
	_ = a.Drain(ctx)
	lease, _ := pool.Acquire(ctx, sticky)
	fmt.Println("in drain:", lease.Server())
	lease.Done(balance.Outcome{})

	a.SetAdmin(balance.Maint, "deploy")
	fmt.Println(a.WaitIdle(ctx))
	lease, _ = pool.Acquire(ctx, sticky)
	fmt.Println("in maintenance:", lease.Server())
	lease.Done(balance.Outcome{})
	// Output:
	// in drain: a
	// <nil>
	// in maintenance: b
}

// Servers with models in memory report how many requests wait and how full their cache is;
// here a loop of the host's would read them from the metrics of each.
func ExampleScored() {
	pool := &balance.Pool{Policy: balance.Scored{
		Scorers: []balance.Scorer{
			{Metric: "queue"},                // one that waits counts as one request
			{Metric: "kv_cache", Weight: 20}, // a full cache counts as 20
		},
		Affinity: 8, // what it is worth to send a prompt where its beginning is in the cache
	}}
	_ = pool.Set(balance.Endpoint{Name: "gpu-1", Addr: "10.0.0.1:8000"}, balance.Endpoint{Name: "gpu-2", Addr: "10.0.0.2:8000"})
	pool.Server("gpu-1").ReportLoad(balance.Load{Name: "queue", Value: 7}, balance.Load{Name: "kv_cache", Value: 0.9})
	pool.Server("gpu-2").ReportLoad(balance.Load{Name: "queue", Value: 2}, balance.Load{Name: "kv_cache", Value: 0.4})

	lease, err := pool.Acquire(context.Background(), balance.Request{Key: balance.Hash("You are a helpful assistant.")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lease.Done(balance.Outcome{Class: balance.OK})
	fmt.Println(lease.Server())
	for _, l := range lease.Server().Loads() {
		fmt.Println(l.Name, l.Value)
	}
	// Output:
	// gpu-2
	// kv_cache 0.4
	// queue 2
}

// A fair queue: one tenant floods a server that does one thing at a time. Another one,
// with a single request, has its turn after one request of the first.
func ExampleQueue_fair() {
	pool := &balance.Pool{Queue: balance.Queue{Size: 100}}
	if err := pool.Set(balance.Endpoint{Name: "a", Addr: "10.0.0.1:80", MaxConns: 1}); err != nil {
		log.Fatal(err)
	}
	lease, _ := pool.Acquire(context.Background(), balance.Request{})

	var served []string // each holds the only slot while it is appended
	var wg sync.WaitGroup
	for i, tenant := range []string{"noisy", "noisy", "noisy", "noisy", "quiet"} {
		wg.Go(func() {
			lease, err := pool.Acquire(context.Background(), balance.Request{Tenant: balance.Hash(tenant)})
			if err != nil {
				log.Fatal(err)
			}
			served = append(served, tenant)
			lease.Done(balance.Outcome{Class: balance.OK})
		})
		for pool.Stats().Queued <= i { // the next one comes after this one
			runtime.Gosched()
		}
	}
	lease.Done(balance.Outcome{Class: balance.OK})
	wg.Wait()
	fmt.Println(served)
	// Output: [noisy quiet noisy noisy noisy]
}
