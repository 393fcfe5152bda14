// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A machine is a simulated server: workers that take one request at a time from a
// common queue.
type machine struct {
	workers chan struct{}
	fails   func() bool // at once, without a worker; nil means never

	mu     sync.Mutex
	mean   func(served int) time.Duration // of the time that one request takes a worker
	served int
}

// newMachine returns a machine of 4 workers, which serve 400 requests in a second.
func newMachine() *machine {
	return &machine{workers: make(chan struct{}, 4), mean: always(10 * time.Millisecond)}
}

// serve serves a request that is work times as long as the average.
func (m *machine) serve(work float64) balance.Class {
	if m.fails != nil && m.fails() {
		time.Sleep(time.Millisecond)
		return balance.StatusError
	}
	m.workers <- struct{}{}
	time.Sleep(time.Duration(work * float64(m.next())))
	<-m.workers
	return balance.OK
}

// next returns the mean time for the next request.
func (m *machine) next() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served++
	return m.mean(m.served)
}

// set replaces the mean time, for a machine that starts anew.
func (m *machine) set(mean func(served int) time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mean, m.served = mean, 0
}

// always is a mean time that never changes.
func always(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

// A world is a pool, its machines, and what the clients saw.
type world struct {
	pool     *balance.Pool
	machines map[string]*machine
	start    time.Time

	mu   sync.Mutex
	seen []sample
}

// A sample is what one request saw.
type sample struct {
	at      time.Duration // since the start
	latency time.Duration
	failed  bool
}

// servers is how many a world has.
const servers = 10

// newWorld makes servers alike, and a pool over them. It must be called in a bubble.
func newWorld(pool *balance.Pool, seed uint64) *world {
	pool.Seed = seed
	w := &world{pool: pool, machines: make(map[string]*machine), start: time.Now()}
	var eps []balance.Endpoint
	for i := range servers {
		name := fmt.Sprint("server", i)
		w.machines[name] = newMachine()
		eps = append(eps, balance.Endpoint{Name: name, Addr: "in.memory:1"})
	}
	if err := pool.Set(eps...); err != nil {
		panic(err)
	}
	return w
}

// run sends requests for length: perSecond of them on average, at random times, of
// random work, from users of whom some send far more than others.
func (w *world) run(seed uint64, perSecond float64, length time.Duration) {
	rng := rand.New(rand.NewPCG(seed, 1))
	users := rand.NewZipf(rng, 1.1, 20, 9999)
	var wg sync.WaitGroup
	for time.Since(w.start) < length {
		time.Sleep(time.Duration(rng.ExpFloat64() / perSecond * float64(time.Second)))
		work, key := rng.ExpFloat64(), balance.Hash(fmt.Sprint("user", users.Uint64()))
		wg.Go(func() { w.request(key, work) })
	}
	wg.Wait()
}

// request is one request of a client.
func (w *world) request(key uint64, work float64) {
	begin := time.Now()
	lease, err := w.pool.Acquire(context.Background(), balance.Request{Key: key})
	if err != nil {
		w.add(sample{at: begin.Sub(w.start), failed: true})
		return
	}
	class := w.machines[lease.Server().Name()].serve(work)
	end := time.Now()
	lease.Done(balance.Outcome{Class: class, Latency: end.Sub(begin), At: end})
	w.add(sample{at: begin.Sub(w.start), latency: end.Sub(begin), failed: class != balance.OK})
}

func (w *world) add(s sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
}

// quantile returns the latency that a part q of the good answers was not above, in
// milliseconds.
func quantile(seen []sample, q float64) float64 {
	var all []time.Duration
	for _, s := range seen {
		if !s.failed {
			all = append(all, s.latency)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))]) / float64(time.Millisecond)
}

// failures returns the part of requests that failed, in percent.
func failures(seen []sample) float64 {
	n := 0
	for _, s := range seen {
		if s.failed {
			n++
		}
	}
	return 100 * float64(n) / float64(max(len(seen), 1))
}
