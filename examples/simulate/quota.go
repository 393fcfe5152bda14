// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/ratelimit"
)

// A store is 5 ms away, and can be killed, which makes it forget everything.
type store struct {
	start time.Time
	slot  time.Duration

	mu    sync.Mutex
	kept  *ratelimit.MemoryStore
	down  bool
	asked int
	slots []int // questions in each slot of time
}

func newStore(slot time.Duration) *store {
	return &store{kept: new(ratelimit.MemoryStore), start: time.Now(), slot: slot}
}

// set kills the store, or starts it anew.
func (s *store) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.down = new(ratelimit.MemoryStore), down
}

func (s *store) come() (*ratelimit.MemoryStore, error) {
	time.Sleep(2500 * time.Microsecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	at := int(time.Since(s.start) / s.slot)
	for len(s.slots) <= at {
		s.slots = append(s.slots, 0)
	}
	s.slots[at]++
	if s.down {
		return nil, errors.New("down")
	}
	return s.kept, nil
}

// Take implements ratelimit.Store.
func (s *store) Take(ctx context.Context, key string, law ratelimit.Law, n int) (d ratelimit.Decision, err error) {
	kept, err := s.come()
	if err == nil {
		d, err = kept.Take(ctx, key, law, n)
		time.Sleep(2500 * time.Microsecond)
	}
	return d, err
}

// Refund implements ratelimit.Store.
func (s *store) Refund(ctx context.Context, key string, law ratelimit.Law, d ratelimit.Decision) error {
	kept, err := s.come()
	if err == nil {
		err = kept.Refund(ctx, key, law, d)
	}
	return err
}

// A limiter is a Shared or a Leased.
type limiter interface {
	Take(key int, n int) ratelimit.Decision
}

// A quota is a limit that gateways keep together, under load.
type quota struct {
	gateways int
	law      ratelimit.Law
	leased   bool
	rate     float64 // takes a second of all gateways
	keys     int
	length   time.Duration
	killed   bool // the store, for the second third of the time

	store    *store
	takes    int
	admitted int
}

// run plays it.
func (q *quota) run(t *testing.T, seed uint64) {
	bubble(t, func() {
		q.store = newStore(100 * time.Millisecond)
		ctx, cancel := context.WithCancel(context.Background())
		var running, load sync.WaitGroup
		for g := range q.gateways {
			shared := &ratelimit.Shared[int]{
				Store: q.store, Law: q.law, Gateways: func() int { return q.gateways }, Logger: slog.New(slog.DiscardHandler),
			}
			var l limiter = shared
			if q.leased {
				lease := &ratelimit.Leased[int]{Shared: shared}
				running.Go(func() { _ = lease.Run(ctx) })
				l = lease
			}
			load.Go(func() { q.load(l, rand.New(rand.NewPCG(seed, uint64(g)))) })
		}
		synctest.Wait()
		if q.killed {
			time.Sleep(q.length / 3)
			q.store.set(true)
			time.Sleep(q.length / 3)
			q.store.set(false)
		}
		load.Wait()
		cancel()
		running.Wait()
	})
}

// load takes at one gateway.
func (q *quota) load(l limiter, rng *rand.Rand) {
	var keys *rand.Zipf
	if q.keys > 1 {
		keys = rand.NewZipf(rng, 1.1, 10, uint64(q.keys-1))
	}
	var all sync.WaitGroup
	defer all.Wait()
	start := time.Now()
	for at := time.Duration(0); ; {
		at += time.Duration(rng.ExpFloat64() / q.rate * float64(q.gateways) * float64(time.Second))
		if at > q.length {
			return
		}
		time.Sleep(time.Until(start.Add(at)))
		key := 0
		if keys != nil {
			key = int(keys.Uint64())
		}
		all.Go(func() {
			d := l.Take(key, 1)
			q.store.mu.Lock()
			defer q.store.mu.Unlock()
			q.takes++
			if d.OK {
				q.admitted++
			}
		})
	}
}

// fleetsFor returns how many gateways there are.
func fleetsFor(length time.Duration) []int {
	if sizeFor(length).gateways < 100 {
		return []int{1, 3}
	}
	return []int{1, 3, 10, 30, 100}
}

// overshoot shows what part of a law gateways admit together that are asked for twice as much.
func overshoot(t *testing.T, seed uint64, length time.Duration) *chart {
	c := &chart{title: "A limit of 10 000/s under twice the load: what all gateways admit together", y: "percent of the law"}
	const rate = 10_000
	fleets := fleetsFor(length)
	length = min(length, 6*time.Second)
	for _, how := range []struct {
		name           string
		leased, killed bool
	}{{"Shared", false, false}, {"Leased", true, false}, {"Shared, store killed", false, true}, {"Leased, store killed", true, true}} {
		s := series{name: how.name}
		for _, n := range fleets {
			q := &quota{gateways: n, law: ratelimit.GCRA{Rate: ratelimit.PerSecond(rate)}, leased: how.leased, killed: how.killed, rate: 2 * rate, length: length}
			q.run(t, seed)
			s.values = append(s.values, 100*float64(q.admitted)/(rate*(1+length.Seconds())))
		}
		c.series = append(c.series, s)
	}
	for _, n := range fleets {
		c.x = append(c.x, fmt.Sprint(n, " gateways"))
	}
	return c
}

// questions shows how often the store is asked for each hundred takes.
func questions(t *testing.T, seed uint64, length time.Duration) *chart {
	c := &chart{title: "Questions to the store for a hundred takes, under half of the law", y: "questions", log: true}
	n, fleets := sizeFor(length), fleetsFor(length)
	length = min(length, 3*time.Second)
	for _, of := range []struct {
		name string
		rate int
		keys int
	}{{"one key of 10 000/s", 10_000, 1}, {"one key of 1000/s", 1000, 1}, {fmt.Sprintf("%d keys, few of them hot", n.keys), 0, n.keys}} {
		s := series{name: of.name}
		for _, gateways := range fleets {
			q := &quota{gateways: gateways, law: ratelimit.GCRA{Rate: ratelimit.PerSecond(of.rate)}, leased: true, rate: float64(of.rate) / 2, keys: of.keys, length: length}
			if of.keys > 1 {
				q.law, q.rate = ratelimit.GCRA{Rate: ratelimit.PerSecond(10_000)}, 20_000
			}
			q.run(t, seed)
			s.values = append(s.values, 100*float64(q.store.asked)/float64(q.takes))
		}
		c.series = append(c.series, s)
	}
	for _, n := range fleets {
		c.x = append(c.x, fmt.Sprint(n, " gateways"))
	}
	return c
}

// stampede shows what a store is asked before, while and after it is away.
func stampede(t *testing.T, seed uint64, length time.Duration) *chart {
	n := sizeFor(length)
	length = min(length, 9*time.Second)
	c := &chart{
		title: fmt.Sprintf("The store is killed for a third of the time: %d gateways, %d keys, 20 000 takes/s", n.gateways, n.keys),
		y:     "questions a second", lines: true, log: true,
	}
	for _, leased := range []bool{false, true} {
		q := &quota{gateways: n.gateways, law: ratelimit.GCRA{Rate: ratelimit.PerSecond(10_000)}, leased: leased, rate: 20_000, keys: n.keys, length: length, killed: true}
		q.run(t, seed)
		s := series{name: "Shared"}
		if leased {
			s.name = "Leased"
		}
		for i := range int(length / q.store.slot) {
			v := 0
			if i < len(q.store.slots) {
				v = q.store.slots[i]
			}
			s.values = append(s.values, float64(max(v, 1))*float64(time.Second/q.store.slot)) // a logarithm has no 0
		}
		c.series = append(c.series, s)
	}
	for i := range c.series[0].values {
		c.x = append(c.x, (time.Duration(i) * 100 * time.Millisecond).String())
	}
	return c
}
