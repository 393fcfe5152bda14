// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLeastTree compares the tree with a look at every server, after each of many
// changes.
func TestLeastTree(t *testing.T) {
	for _, n := range []int{257, 300, 512, 1000} {
		p := &Pool{Policy: LeastConn{}}
		var eps []Endpoint
		for i := range n {
			eps = append(eps, Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 1 + i%3, MaxConns: 3})
		}
		require.NoError(t, p.Set(eps...))
		tree := p.snap.Load().groups[0].picker.(*leastTree)
		rng := rand.New(rand.NewPCG(1, 2))
		var leases []Lease
		for range 3000 {
			if len(leases) > 0 && rng.IntN(5) < 2 {
				i := rng.IntN(len(leases))
				leases[i].Done(Outcome{})
				leases[i] = leases[len(leases)-1]
				leases = leases[:len(leases)-1]
				continue
			}
			var req Request
			least := leastOf(tree.view)
			if rng.IntN(4) == 0 {
				req.Avoid(least)
			}
			l, err := p.Acquire(context.Background(), req)
			require.NoError(t, err)
			leases = append(leases, l)
			if req.tried.a != nil {
				require.NotSame(t, least, l.s)
				continue
			}
			if l.s == least {
				continue
			}
			with := rankWith(least, 1)
			before := rankWith(l.s, -1) // its turn: it has the lease already
			require.True(t, before.less(with), "%s would have had no more than %s", least, l.s)
		}
	}
}

// rankWith returns the rank of s if it had more leases.
func rankWith(s *Server, more int64) rank {
	return rank{uint64(s.load() + more), uint64(s.Endpoint().Weight)}
}

// leastOf returns a server of least rank that has a slot.
func leastOf(v View) *Server {
	var best *Server
	var least rank
	for _, s := range v.Servers {
		if r := rankWith(s, 1); s.roomy(needSlot) && (best == nil || r.less(least)) {
			best, least = s, r
		}
	}
	return best
}

// TestLeastTreeContended lets many goroutines loose on a tree. When they are done,
// every match must have the right winner.
func TestLeastTreeContended(t *testing.T) {
	p := &Pool{Policy: LeastConn{}}
	var eps []Endpoint
	for i := range 300 {
		eps = append(eps, Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 1 + i%3})
	}
	require.NoError(t, p.Set(eps...))
	var wg sync.WaitGroup
	var kept sync.Map
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				l, err := p.Acquire(context.Background(), Request{})
				if err != nil {
					t.Error(err)
					return
				}
				if i%4 == 0 {
					kept.Store([2]int{g, i}, l)
				} else {
					l.Done(Outcome{})
				}
			}
		})
	}
	wg.Wait()
	tree := p.snap.Load().groups[0].picker.(*leastTree)
	for n := 1; n < tree.leaves; n++ {
		i := tree.winner(n)
		for _, child := range []int{2 * n, 2*n + 1} {
			if j := tree.winner(child); j >= 0 {
				a, b := rankWith(tree.view.Servers[j], 1), rankWith(tree.view.Servers[i], 1)
				require.False(t, a.less(b), "match %d", n)
			}
		}
	}
	kept.Range(func(_, l any) bool { l.(Lease).Done(Outcome{}); return true })
	require.Zero(t, p.Stats().InFlight)
}

// TestSeed runs two pools with one seed.
func TestSeed(t *testing.T) {
	for _, policy := range []Policy{Random{}, TwoChoices{N: 3}, PeakEWMA{}, nil} {
		var runs [2]string
		for k := range runs {
			p := &Pool{Policy: policy, Seed: 42}
			for i := range 5 {
				eps := make([]Endpoint, i+3)
				for j := range eps {
					eps[j] = Endpoint{Name: string(rune('a' + j)), Addr: "h:1"}
				}
				require.NoError(t, p.Set(eps...))
				for range 20 {
					l, err := p.Acquire(context.Background(), Request{})
					require.NoError(t, err)
					runs[k] += l.s.name
					l.Done(Outcome{})
				}
			}
		}
		require.Equal(t, runs[0], runs[1])
	}
}

// TestLeastTreeKeepsShares has 300 servers, of which every tenth is light, with little in
// flight.
func TestLeastTreeKeepsShares(t *testing.T) {
	for _, inFlight := range []int{0, 1, 100, 2000} {
		p := &Pool{Policy: LeastConn{}}
		var eps []Endpoint
		for i := range 300 {
			e := Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 9}
			if i%10 == 0 {
				e.Weight = 1
			}
			eps = append(eps, e)
		}
		require.NoError(t, p.Set(eps...))
		var held []Lease
		light, n := 0, 0
		for n < 20000 {
			l, err := p.Acquire(context.Background(), Request{})
			require.NoError(t, err)
			n++
			if l.s.Endpoint().Weight == 1 {
				light++
			}
			if held = append(held, l); len(held) > inFlight {
				held[0].Done(Outcome{})
				held = held[1:]
			}
		}
		require.InDelta(t, n*30/(30+270*9), light, float64(n)/1000, "%d in flight", inFlight)
		for _, l := range held {
			l.Done(Outcome{})
		}
	}
}
