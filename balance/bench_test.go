// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"testing"

	"github.com/penstock-lb/penstock/balance"
)

func policies() map[string]balance.Policy {
	return map[string]balance.Policy{
		"RoundRobin": balance.RoundRobin{},
		"TwoChoices": balance.TwoChoices{},
		"LeastConn":  balance.LeastConn{},
		"Random":     balance.Random{},
		"First":      balance.First{},
		"PeakEWMA":   balance.PeakEWMA{},
		"Ring":       balance.Ring{},
		"Maglev":     balance.Maglev{},
		"Rendezvous": balance.Rendezvous{},
		"RingBound":  balance.Ring{Bound: 1.25},
	}
}

// BenchmarkAcquire measures one Acquire and Done.
func BenchmarkAcquire(b *testing.B) {
	for name, policy := range policies() {
		for _, n := range []int{10, 100, 1000, 10000} {
			p := &balance.Pool{Policy: policy}
			eps := make([]balance.Endpoint, n)
			for i := range eps {
				eps[i] = balance.Endpoint{Addr: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), Weight: 1 + i%3}
			}
			if err := p.Set(eps...); err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s/%d/serial", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					l, _ := p.Acquire(ctx, balance.Request{Key: 7})
					l.Done(balance.Outcome{})
				}
			})
			b.Run(fmt.Sprintf("%s/%d/parallel", name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						l, _ := p.Acquire(ctx, balance.Request{Key: 7})
						l.Done(balance.Outcome{})
					}
				})
			})
		}
	}
}
