// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// canary shows the part of all requests that a server of weight 10 gets beside one of
// weight 90 of the same speed, while so many others are in flight.
func canary(_ *testing.T, seed uint64, _ time.Duration) *chart {
	const requests = 20000
	c := &chart{title: "A canary of weight 10 beside 90: its part of the requests", y: "percent"}
	for _, inFlight := range []int{0, 1, 10, 100} {
		s := series{name: fmt.Sprint(inFlight, " in flight")}
		for _, e := range contenders {
			if inFlight == 0 {
				c.x = append(c.x, e.name)
			}
			p := &balance.Pool{Policy: e.policy, Seed: seed}
			if err := p.Set(balance.Endpoint{Name: "stable", Addr: "in.memory:1", Weight: 90}, balance.Endpoint{Name: "canary", Addr: "in.memory:2", Weight: 10}); err != nil {
				panic(err)
			}
			rng := rand.New(rand.NewPCG(seed, 3))
			var held []balance.Lease
			for range requests {
				held = append(held, acquire(p, rng.Uint64()))
				if len(held) > inFlight {
					i := rng.IntN(len(held))
					held[i].Done(balance.Outcome{Latency: 10 * time.Millisecond, At: time.Unix(1e9, 0)})
					held = slices.Delete(held, i, i+1)
				}
			}
			st := p.Server("canary").Stats()
			s.values = append(s.values, 100*float64(st.Picks)/requests)
		}
		c.series = append(c.series, s)
	}
	return c
}
