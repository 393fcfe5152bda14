// SPDX-License-Identifier: Apache-2.0

package balancetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// light fails if a server does not have about its share of the picks when little is in
// flight, though all of them answer in the same time. A policy that compares loads is
// easily wrong there, as a lease is a lot for a light server: with weights 90 and 10, the
// second may never be picked, or half of the time.
func (s suite) light(t *testing.T) {
	if s.law.Share == 0 {
		t.Skip("weights do not count")
	}
	if testing.Short() {
		t.Skip("a million picks by one goroutine")
	}
	for _, weights := range [][]int{{1, 1}, {2, 1}, {90, 10}, {1000, 1}, {50, 30, 15, 5}, {1, 1000, 1}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			p := s.pool(t, len(weights), 0, weights...)
			warm(t, p)
			s.lightly(t, p, done)
		})
	}
	for _, weights := range [][]int{{90, 10}, {50, 30, 15, 5}} {
		t.Run(fmt.Sprint(weights, " and nothing measured"), func(t *testing.T) {
			p := s.pool(t, len(weights), 0, weights...)
			s.lightly(t, p, func(l balance.Lease) { l.Done(balance.Outcome{}) })
		})
	}
	for _, weights := range [][]int{{1, 1}, {90, 10}, {10, 90}} {
		t.Run(fmt.Sprint("slow start of the last of ", weights), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := s.unset()
				p.SlowStart = balance.SlowStart{Window: time.Hour}
				set(t, p, s.endpoints(len(weights), 0, weights...))
				warm(t, p)
				time.Sleep(2 * time.Hour)
				last := p.Server(fmt.Sprint("s", len(weights)-1))
				last.Report(balance.Check, balance.Down, "test")
				last.Report(balance.Check, balance.Up, "")
				time.Sleep(20 * time.Minute) // at 30 %
				synctest.Wait()
				s.lightly(t, p, done)
				time.Sleep(time.Hour) // the ramp's timer ends
			})
		})
	}
}

// lightly goes through loads, with leases that end in order and at random, each by done.
func (s suite) lightly(t *testing.T, p *balance.Pool, done func(balance.Lease)) {
	t.Helper()
	worst := 0.0
	for _, inFlight := range []int{0, 1, 2, 5, 10, 100} {
		worst = max(worst, s.flow(t, p, inFlight, false, done), s.flow(t, p, inFlight, true, done))
	}
	t.Logf("with 0 to 100 in flight each server got its part by weight, give or take %.0f %%; a third may be, and more by chance where picks are few", 100*worst)
}

// flow picks while so much is in flight, and returns how far off a server was.
func (s suite) flow(t *testing.T, p *balance.Pool, inFlight int, random bool, done func(balance.Lease)) (worst float64) {
	t.Helper()
	parts, least := make(map[*balance.Server]float64), 1.0
	sum := 0.0
	for _, e := range p.Explain() {
		sum += e.Weight
	}
	for _, e := range p.Explain() {
		parts[e.Server] = e.Weight / sum
		least = min(least, e.Weight/sum)
	}
	n := max(2000, int(40/least))
	rng := rand.New(rand.NewPCG(1, uint64(inFlight)))
	picks := make(map[*balance.Server]int)
	held := make([]balance.Lease, 0, inFlight+1)
	for i := range n + inFlight {
		l, err := p.Acquire(context.Background(), balance.Request{Key: rng.Uint64()})
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		if i >= inFlight {
			picks[l.Server()]++
		}
		if held = append(held, l); len(held) <= inFlight {
			continue
		}
		end := 0
		if random {
			end = rng.IntN(len(held))
		}
		done(held[end])
		held = slices.Delete(held, end, end+1) // the oldest stays first
	}
	for _, l := range held {
		done(l)
	}
	idle(t, p)
	for srv, part := range parts {
		want := float64(n) * part
		off := math.Abs(float64(picks[srv])-want) / want
		worst = max(worst, off)
		if off > max(1.0/3, s.law.Share)+3/math.Sqrt(want) {
			t.Errorf("with %d in flight, that end at random: %v, %s got %d of %d; want about %.0f", inFlight, random, srv, picks[srv], n, want)
		}
	}
	return worst
}
