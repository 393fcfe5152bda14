// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// leasedFor returns a Leased that runs until the test ends, over a store in memory.
func leasedFor(tb testing.TB, law Law) *Leased[string] {
	l := &Leased[string]{Shared: &Shared[string]{Store: new(MemoryStore), Law: law, Gateways: func() int { return 3 }}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
	for !l.running.Load() {
		time.Sleep(time.Millisecond)
	}
	return l
}

// BenchmarkLeased stands beside BenchmarkKeyed, the same in one process. P99 is of
// single Takes, and has the price of two looks at the clock in it.
func BenchmarkLeased(b *testing.B) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("tenant", i)
	}
	for _, c := range []struct {
		name string
		law  Law
		keys int
	}{
		{"one key", GCRA{Rate: PerSecond(100_000_000)}, 1},
		{"1000 keys", GCRA{Rate: PerSecond(1_000_000)}, 1000},
		{"refused", GCRA{Rate: PerHour(100_000)}, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := leasedFor(b, c.law)
			took := make([]time.Duration, 0, 1<<20)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				begin := time.Now()
				l.Take(keys[i%c.keys], 1)
				if d := time.Since(begin); len(took) < cap(took) {
					took = append(took, d)
				} else {
					took[i%cap(took)] = d
				}
				i++
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			b.ReportMetric(float64(l.Stats().Asked)/float64(b.N), "asked/op")
		})
	}
}
