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
			a := rankOf(least.load()-same(least, l.s), least.Endpoint().Weight, false)
			b := rankOf(l.s.load()-1, l.s.Endpoint().Weight, false)
			require.False(t, a.less(b), "%s has less than %s", least, l.s)
		}
	}
}

// same is 1 if the lease that was just taken is on s.
func same(s, picked *Server) int64 {
	if s == picked {
		return 1
	}
	return 0
}

// leastOf returns a server of least rank that has a slot.
func leastOf(v View) *Server {
	var best *Server
	var least rank
	for i, s := range v.Servers {
		if r := rankOf(s.load(), v.Weights[i], false); s.roomy(needSlot) && (best == nil || r.less(least)) {
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
				a := rankOf(tree.view.Servers[j].load(), tree.view.Weights[j], false)
				b := rankOf(tree.view.Servers[i].load(), tree.view.Weights[i], false)
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
