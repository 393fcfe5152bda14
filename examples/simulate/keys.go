// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

var hashers = []contender{
	{"modulo", balance.PolicyFunc(modulo)},
	{"Ring", balance.Ring{}},
	{"Ring 1.25", balance.Ring{Bound: 1.25}},
	{"Maglev", balance.Maglev{}},
	{"Maglev 1.25", balance.Maglev{Bound: 1.25}},
	{"Rendezvous", balance.Rendezvous{}},
	{"Rendezvous 1.25", balance.Rendezvous{Bound: 1.25}},
}

// modulo is what not to do: a change of the number of servers moves nearly every key.
func modulo(v balance.View) balance.Picker { return byModulo(v.Servers) }

type byModulo []*balance.Server

func (p byModulo) Pick(key uint64, f balance.Filter) *balance.Server {
	for i := range p {
		if s := p[(key+uint64(i))%uint64(len(p))]; f.Allows(s) {
			return s
		}
	}
	return nil
}

// hashed returns a pool of n servers.
func hashed(policy balance.Policy, n int) *balance.Pool {
	p := &balance.Pool{Policy: policy, Seed: 1}
	var eps []balance.Endpoint
	for i := range n {
		eps = append(eps, balance.Endpoint{Name: fmt.Sprint("server", i), Addr: "in.memory:1"})
	}
	if err := p.Set(eps...); err != nil {
		panic(err)
	}
	return p
}

// acquire takes a lease that must be there.
func acquire(p *balance.Pool, key uint64) balance.Lease {
	l, err := p.Acquire(context.Background(), balance.Request{Key: key})
	if err != nil {
		panic(err)
	}
	return l
}

// keySpread shows how much more than the average the busiest server has to do, for keys
// that are asked for equally often, and for some that are asked for far more often.
func keySpread(_ *testing.T, seed uint64, _ time.Duration) *chart {
	const leases = 20000
	c := &chart{title: "Load of the busiest of ten servers, 20000 leases open", y: "times the average"}
	var even, zipf []float64
	for _, h := range hashers {
		c.x = append(c.x, h.name)
		for _, hot := range []bool{false, true} {
			rng := rand.New(rand.NewPCG(seed, 2))
			users := rand.NewZipf(rng, 1.1, 20, 9999)
			p := hashed(h.policy, servers)
			for range leases {
				user := uint64(rng.IntN(10000))
				if hot {
					user = users.Uint64()
				}
				acquire(p, balance.Hash(fmt.Sprint("user", user)))
			}
			busiest := 0
			for s := range p.All() {
				busiest = max(busiest, s.InFlight())
			}
			if hot {
				zipf = append(zipf, float64(busiest)*servers/leases)
			} else {
				even = append(even, float64(busiest)*servers/leases)
			}
		}
	}
	c.series = []series{{"all keys alike", even}, {"few hot keys", zipf}}
	return c
}

// keysMoved shows how many keys change their server when one of ten leaves.
func keysMoved(_ *testing.T, _ uint64, _ time.Duration) *chart {
	const keys = 20000
	c := &chart{title: "Keys that move when one of ten servers leaves", y: "percent; 10 is the least possible"}
	var must, more []float64
	for _, h := range hashers {
		if strings.HasSuffix(h.name, " 1.25") {
			continue // the bound does not count while nothing is in flight
		}
		c.x = append(c.x, h.name)
		p := hashed(h.policy, servers)
		before := make([]*balance.Server, keys)
		for i := range before {
			l := acquire(p, balance.Hash(fmt.Sprint("user", i)))
			before[i] = l.Server()
			l.Done(balance.Outcome{})
		}
		gone := p.Server("server3")
		gone.Report(balance.Check, balance.Down, "left")
		own, others := 0, 0
		for i := range before {
			l := acquire(p, balance.Hash(fmt.Sprint("user", i)))
			switch {
			case before[i] == gone:
				own++
			case l.Server() != before[i]:
				others++
			}
			l.Done(balance.Outcome{})
		}
		must = append(must, 100*float64(own)/keys)
		more = append(more, 100*float64(others)/keys)
	}
	c.series = []series{{"of the server that left", must}, {"of servers that stayed", more}}
	return c
}
