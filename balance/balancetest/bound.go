// SPDX-License-Identifier: Apache-2.0

package balancetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/penstock-lb/penstock/balance"
)

// bounder is a picker with a Bound, see [balance.Picker].
type bounder interface{ Bound(*balance.Server) int }

// bounds fails if a server gets a lease beyond its Bound while another one that has room is
// within its own.
func (s suite) bounds(t *testing.T) {
	var picker balance.Picker
	own := s.policy
	if own == nil {
		own = balance.TwoChoices{}
	}
	s.policy = balance.PolicyFunc(func(v balance.View) balance.Picker {
		picker = own.Picker(v)
		return picker
	})
	for _, maxConns := range []int{0, 10} {
		for _, n := range []int{2, 5, 40} {
			p := s.pool(t, n, maxConns, 1, 2)
			b, ok := picker.(bounder)
			if !ok {
				t.Skip("the picker has no Bound")
			}
			t.Run(fmt.Sprintf("%d servers, limit %d", n, maxConns), func(t *testing.T) { bounded(t, p, b, maxConns, 8*n) })
		}
	}
}

// bounded takes and ends leases at random, up to so many at once.
func bounded(t *testing.T, p *balance.Pool, b bounder, maxConns, most int) {
	rng := rand.New(rand.NewPCG(1, uint64(most)))
	var held []balance.Lease
	for range 20 * most {
		if len(held) > 0 && (len(held) == most || rng.IntN(5) < 2) {
			i := rng.IntN(len(held))
			done(held[i])
			held = slices.Delete(held, i, i+1)
			continue
		}
		within := make(map[*balance.Server]int)
		for srv := range p.All() {
			if n, of := srv.InFlight(), b.Bound(srv); n < of && (maxConns == 0 || n < maxConns) {
				within[srv] = of
			}
		}
		l, err := p.Acquire(context.Background(), balance.Request{Key: rng.Uint64N(4)})
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		held = append(held, l)
		if _, ok := within[l.Server()]; ok {
			continue
		}
		for other, of := range within {
			t.Fatalf("%s has %d leases, its Bound is %d; %s with %d of %d could have had the last", l.Server(), l.Server().InFlight(), b.Bound(l.Server()), other, other.InFlight(), of)
		}
	}
	for _, l := range held {
		done(l)
	}
	idle(t, p)
}
