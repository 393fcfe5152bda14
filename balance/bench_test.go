// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/penstock-lb/penstock/balance"
)

var benchmarked = []struct {
	name   string
	policy balance.Policy
}{
	{"RoundRobin", balance.RoundRobin{}},
	{"Random", balance.Random{}},
	{"TwoChoices", balance.TwoChoices{}},
	{"LeastConn", balance.LeastConn{}},
	{"PeakEWMA", balance.PeakEWMA{}},
	{"First", balance.First{}},
	{"Ring", balance.Ring{}},
	{"RingBound", balance.Ring{Bound: 1.25}},
	{"Maglev", balance.Maglev{}},
	{"Rendezvous", balance.Rendezvous{}},
}

// many returns n endpoints of weights 1 to 3.
func many(n int) []balance.Endpoint {
	eps := make([]balance.Endpoint, n)
	for i := range eps {
		eps[i] = balance.Endpoint{Addr: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), Weight: 1 + i%3}
	}
	return eps
}

// BenchmarkAcquire measures one Acquire and Done, by one goroutine and by one for each
// processor, with a key that changes each time.
func BenchmarkAcquire(b *testing.B) {
	for _, bm := range benchmarked {
		for _, n := range []int{10, 100, 1000, 10000} {
			p := &balance.Pool{Policy: bm.policy}
			if err := p.Set(many(n)...); err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s/%d/serial", bm.name, n), func(b *testing.B) {
				b.ReportAllocs()
				req := balance.Request{}
				for b.Loop() {
					req.Key += 0x9e3779b97f4a7c15
					l, _ := p.Acquire(ctx, req)
					l.Done(balance.Outcome{})
				}
			})
			b.Run(fmt.Sprintf("%s/%d/parallel", bm.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					req := balance.Request{}
					for pb.Next() {
						req.Key += 0x9e3779b97f4a7c15
						l, _ := p.Acquire(ctx, req)
						l.Done(balance.Outcome{})
					}
				})
			})
		}
	}
}

// BenchmarkAcquireFull measures the same with what a proxy has: limits, and latencies.
func BenchmarkAcquireFull(b *testing.B) {
	p := &balance.Pool{Policy: balance.RoundRobin{}, WhenFull: balance.Wait}
	eps := many(100)
	for i := range eps {
		eps[i].MaxConns = 1000
	}
	if err := p.Set(eps...); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		l, _ := p.Acquire(ctx, balance.Request{})
		l.Done(balance.Outcome{Class: balance.OK, Latency: 1e6})
	}
}

// BenchmarkSet measures a Set of 10000 endpoints of which one has changed.
func BenchmarkSet(b *testing.B) {
	for _, bm := range benchmarked {
		b.Run(bm.name, func(b *testing.B) {
			p := &balance.Pool{Policy: bm.policy}
			eps := many(10000)
			if err := p.Set(eps...); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				eps[5000].Weight = 5 - eps[5000].Weight
				if err := p.Set(eps...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReport measures one change of health.
func BenchmarkReport(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("Maglev/%d", n), func(b *testing.B) { benchmarkReport(b, balance.Maglev{}, n) })
		b.Run(fmt.Sprintf("TwoChoices/%d", n), func(b *testing.B) { benchmarkReport(b, balance.TwoChoices{}, n) })
	}
}

func benchmarkReport(b *testing.B, policy balance.Policy, n int) {
	p := &balance.Pool{Policy: policy}
	eps := many(n)
	if err := p.Set(eps...); err != nil {
		b.Fatal(err)
	}
	s := p.Server(eps[0].Addr)
	h := balance.Up
	for b.Loop() {
		h = balance.Down - h
		s.Report(balance.Check, h, "")
	}
}

// BenchmarkNaive is what Acquire has to be compared with: a counter and two more.
func BenchmarkNaive(b *testing.B) {
	servers := make([]struct {
		inflight atomic.Int64
		_        [120]byte
	}, 10)
	var next atomic.Uint64
	b.Run("serial", func(b *testing.B) {
		for b.Loop() {
			s := &servers[next.Add(1)%10]
			s.inflight.Add(1)
			s.inflight.Add(-1)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				s := &servers[next.Add(1)%10]
				s.inflight.Add(1)
				s.inflight.Add(-1)
			}
		})
	})
}
