// SPDX-License-Identifier: Apache-2.0

package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/ratelimit"
)

func ExampleKeyed() {
	perClient := &ratelimit.Keyed[netip.Addr]{
		Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(6), Burst: 2},
		Ban: ratelimit.Ban{After: 100, For: time.Hour},
	}
	client := netip.MustParseAddr("192.0.2.1")
	for range 3 {
		d := perClient.Take(client, 1)
		fmt.Println(d.OK, d.Remaining, d.RetryAfter())
	}
	// Output:
	// true 1 0
	// true 0 0
	// false 0 10
}

func ExampleLimiter() {
	// At most two reports at a time, whoever asks.
	reports := ratelimit.Limiter{Law: ratelimit.InFlight{Max: 2}}
	first, second, third := reports.Take(1), reports.Take(1), reports.Take(1)
	fmt.Println(first.OK, second.OK, third.OK)
	reports.Refund(first)
	fmt.Println(reports.Take(1).OK)
	// Output:
	// true true false
	// true
}

func ExampleDecision_AppendRateLimit() {
	l := ratelimit.Limiter{Law: ratelimit.Window{Rate: ratelimit.PerMinute(100)}}
	d := l.Take(30)
	fmt.Printf("RateLimit: %s\n", d.AppendRateLimit(nil, "default")[:16])
	// Output:
	// RateLimit: "default";r=70;t
}

func ExampleConcurrency() {
	reports := ratelimit.Concurrency{Max: 1, MaxQueue: 10, MaxWait: time.Second}
	if err := reports.Acquire(context.Background()); err != nil {
		fmt.Println("busy")
		return
	}
	defer reports.Release(0)
	fmt.Println(reports.Held())
	// Output: 1
}

func ExampleAdaptive() {
	var limit ratelimit.Adaptive
	if limit.TryAcquire() {
		start := time.Now()
		// ask the server
		limit.Release(time.Since(start))
	}
	fmt.Println(limit.Limit())
	// Output: 20
}

func ExampleBandwidth() {
	downloads := &ratelimit.Bandwidth{BytesPerSecond: 10 << 20}
	w := downloads.Writer(context.Background(), io.Discard)
	n, err := w.Write(make([]byte, 100_000))
	fmt.Println(n, err)
	// Output: 100000 <nil>
}

func ExampleShared() {
	// In life the store is a redisstore.Store, the same for all gateways.
	store := &ratelimit.MemoryStore{}
	one := ratelimit.Shared[string]{Store: store, Law: ratelimit.Window{Rate: ratelimit.PerHour(2)}, Prefix: "tenant:"}
	two := ratelimit.Shared[string]{Store: store, Law: ratelimit.Window{Rate: ratelimit.PerHour(2)}, Prefix: "tenant:"}
	fmt.Println(one.Take("acme", 1).OK, two.Take("acme", 1).OK, one.Take("acme", 1).OK)
	// Output: true true false
}

func ExampleBucket() {
	b := ratelimit.Bucket{Rate: ratelimit.PerSecond(10), Burst: 2}
	fmt.Println(b.Take(1).OK, b.Take(1).OK, b.Take(1).OK)
	// Output: true true false
}

// One a second on average, a few at once, and what exceeds them waits for its
// turn if that is near.
func ExampleGCRA() {
	calls := ratelimit.Limiter{Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(60), Burst: 2, MaxWait: 2 * time.Second}}
	for range 5 {
		d := calls.Take(1)
		fmt.Println(d.OK, d.Wait.Round(time.Second))
	}
	// Output:
	// true 0s
	// true 0s
	// true 1s
	// true 2s
	// false 1s
}

// Who is refused counts on: only slowing down helps.
func ExampleWindow() {
	logins := ratelimit.Keyed[string]{Law: ratelimit.Window{Rate: ratelimit.PerHour(2), CountRefused: true}}
	fmt.Println(logins.Take("mallory", 1).OK, logins.Take("mallory", 1).OK, logins.Take("mallory", 1).OK)
	fmt.Println(logins.Take("alice", 1).OK)
	// Output:
	// true true false
	// true
}

func ExampleInFlight() {
	perTenant := ratelimit.Keyed[string]{Law: ratelimit.InFlight{Max: 1}}
	query := perTenant.Take("acme", 1)
	fmt.Println(query.OK, perTenant.Take("acme", 1).OK)
	perTenant.Refund("acme", query) // when the query has ended
	fmt.Println(perTenant.Take("acme", 1).OK)
	// Output:
	// true false
	// true
}

func ExampleBan() {
	perClient := ratelimit.Keyed[string]{
		Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1)},
		Ban: ratelimit.Ban{After: 3, Within: time.Minute, For: time.Hour},
	}
	for range 5 {
		d := perClient.Take("192.0.2.1", 1)
		fmt.Println(d.OK, d.RetryAfter() > 60)
	}
	// Output:
	// true false
	// false false
	// false false
	// false false
	// false true
}

func ExampleUnlimited() {
	perClient := ratelimit.Keyed[string]{
		Law: ratelimit.GCRA{Rate: ratelimit.PerHour(1)},
		LawOf: func(client string) ratelimit.Law {
			if client == "monitor" {
				return ratelimit.Unlimited{}
			}
			return nil // as for everybody
		},
	}
	for _, client := range []string{"monitor", "monitor", "other", "other"} {
		fmt.Println(client, perClient.Take(client, 1).OK)
	}
	// Output:
	// monitor true
	// monitor true
	// other true
	// other false
}

// Two gateways keep one limit. What they admit is charged to the store afterwards, so
// that a decision waits for nothing.
func ExampleLeased() {
	var store ratelimit.MemoryStore // or a redisstore.Store
	gateway := func() *ratelimit.Leased[string] {
		return &ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{
			Store: &store, Law: ratelimit.Window{Rate: ratelimit.PerHour(10_000)}, Prefix: "tenant:",
			Gateways: func() int { return 2 }, // or (*balance.Share).Count
		}}
	}
	one, two := gateway(), gateway()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = one.Run(ctx) })
	running.Go(func() { _ = two.Run(ctx) })

	for range 50 {
		one.Take("acme", 1)
	}
	fmt.Println(two.Take("acme", 10).OK)

	cancel()
	running.Wait() // now all is charged
	fmt.Println(two.Take("acme", 0).Remaining)
	// Output:
	// true
	// 9940
}

// A store that stands in for the one that gateways share, in tests say.
func ExampleMemoryStore() {
	var store ratelimit.MemoryStore
	law := ratelimit.Window{Rate: ratelimit.PerHour(1)}
	first, err := store.Take(context.Background(), "tenant:acme", law, 1)
	second, _ := store.Take(context.Background(), "tenant:acme", law, 1)
	fmt.Println(first.OK, second.OK, err)
	// Output: true false <nil>
}

// A circuit breaker around a call of any kind.
func ExampleBreaker() {
	b := ratelimit.Breaker{Volume: 2, Open: time.Minute, OnChange: func(c ratelimit.BreakerChange) {
		fmt.Printf("%v: %d of %d failed\n", c.To, c.Failed, c.Ended)
	}}
	call := func() error {
		permit, wait, ok := b.Allow()
		if !ok {
			return fmt.Errorf("refused for %v", wait.Round(time.Second))
		}
		err := errors.New("no answer") // of the work
		if err != nil {
			permit.Fail()
		} else {
			permit.Succeed()
		}
		return err
	}
	for range 3 {
		fmt.Println(call())
	}
	// Output:
	// no answer
	// open: 2 of 2 failed
	// no answer
	// refused for 1m0s
}

// Load shedding by a load of one's own: here the length of a queue of work.
func ExampleShedder() {
	jobs := make(chan func(), 100)
	s := ratelimit.Shedder{Load: func() (float64, error) { return float64(len(jobs)) / float64(cap(jobs)), nil }}
	if s.TryAcquire() {
		jobs <- func() {}
	}
	fmt.Println(len(jobs), s.Share())
	// Output: 1 1
}

// A bulkhead: each part of a program has places of its own.
func ExampleConcurrency_bulkhead() {
	reports, all := &ratelimit.Concurrency{Max: 1}, &ratelimit.Concurrency{Max: 100}
	fmt.Println(reports.TryAcquire(), reports.TryAcquire(), all.TryAcquire())
	// Output: true false true
}
