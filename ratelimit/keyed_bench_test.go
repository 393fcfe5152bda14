// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"
)

func manyKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "tenant-" + strconv.Itoa(i)
	}
	return keys
}

// naive is what most people write first.
type naive struct {
	mu sync.Mutex
	m  map[string]*rate.Limiter
}

func (n *naive) allow(key string) bool {
	n.mu.Lock()
	l := n.m[key]
	if l == nil {
		l = rate.NewLimiter(1000, 1000)
		n.m[key] = l
	}
	n.mu.Unlock()
	return l.Allow()
}

func BenchmarkKeyed(b *testing.B) {
	keys := manyKeys(100_000)
	law := GCRA{Rate: PerSecond(1000)}

	b.Run("one", func(b *testing.B) {
		l := &Keyed[string]{Law: law}
		b.ReportAllocs()
		for b.Loop() {
			l.Take("tenant", 1)
		}
	})
	b.Run("address", func(b *testing.B) {
		l := &Keyed[netip.Addr]{Law: law}
		a := netip.MustParseAddr("192.0.2.1")
		b.ReportAllocs()
		for b.Loop() {
			l.Take(a, 1)
		}
	})
	b.Run("window", func(b *testing.B) {
		l := &Keyed[string]{Law: Window{Rate: PerSecond(1000)}}
		b.ReportAllocs()
		for b.Loop() {
			l.Take("tenant", 1)
		}
	})
	b.Run("100000", func(b *testing.B) {
		l := &Keyed[string]{Law: law, Max: 200_000}
		for _, k := range keys {
			l.Take(k, 1)
		}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			l.Take(keys[i%len(keys)], 1)
			i++
		}
	})
	b.Run("100000/parallel", func(b *testing.B) {
		l := &Keyed[string]{Law: law, Max: 200_000}
		for _, k := range keys {
			l.Take(k, 1)
		}
		parallel(b, func(i int) { l.Take(keys[i%len(keys)], 1) })
	})
	b.Run("one/parallel", func(b *testing.B) {
		l := &Keyed[string]{Law: law}
		parallel(b, func(int) { l.Take("tenant", 1) })
	})
	b.Run("100000/naive/parallel", func(b *testing.B) {
		l := &naive{m: make(map[string]*rate.Limiter)}
		for _, k := range keys {
			l.allow(k)
		}
		parallel(b, func(i int) { l.allow(keys[i%len(keys)]) })
	})
	b.Run("new", func(b *testing.B) {
		l := &Keyed[int]{Law: law}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			l.Take(i, 1)
			i++
		}
	})
}

func parallel(b *testing.B, do func(i int)) {
	b.ReportAllocs()
	var start atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for i := int(start.Add(50_000)); pb.Next(); i++ {
			do(i)
		}
	})
}
