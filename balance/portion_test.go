// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func numbered(what string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%03d", what, i)
	}
	return names
}

// Each gateway has size servers, none twice; each server has as many gateways as any
// other, one more or less; the order of servers does not count.
func TestPortionsAreEven(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		gateways, servers := numbered("gw", 1+rnd.IntN(30)), numbered("s", 1+rnd.IntN(200))
		size := 1 + rnd.IntN(40)
		got := portionsOf(gateways, servers, size)
		per := min(max(size, (len(servers)+len(gateways)-1)/len(gateways)), len(servers))
		count := make([]int, len(servers))
		for _, own := range got {
			require.Len(t, own, per, "%d gateways, %d servers, %d", len(gateways), len(servers), size)
			require.Len(t, slices.Compact(slices.Clone(own)), per)
			for _, s := range own {
				count[s]++
			}
		}
		require.LessOrEqual(t, slices.Max(count)-slices.Min(count), 1, "%d gateways, %d servers, %d", len(gateways), len(servers), size)

		shuffled := slices.Clone(servers)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for g, own := range portionsOf(gateways, shuffled, size) {
			require.Equal(t, namesAt(servers, got[g]), namesAt(shuffled, own))
		}
	}
	require.Equal(t, make([][]int32, 2), portionsOf(numbered("gw", 2), nil, 3))
}

// namesAt are the names of a portion, in order.
func namesAt(names []string, own []int32) []string {
	var got []string
	for _, i := range own {
		got = append(got, names[i])
	}
	slices.Sort(got)
	return got
}

// lost is the share of pairs of before that after lacks, of gateways and servers that
// both have.
func lost(before, after map[string][]string, gone func(gateway, server string) bool) float64 {
	kept, all := 0, 0
	for g, own := range before {
		for _, s := range own {
			if gone(g, s) {
				continue
			}
			all++
			if slices.Contains(after[g], s) {
				kept++
			}
		}
	}
	return float64(all-kept) / float64(all)
}

// The least that must move: when a server goes, each of its gateways needs another, and
// when a gateway goes, its servers do. Others move as well, to keep the numbers even.
func TestPortionMoves(t *testing.T) {
	portions := func(gateways, servers []string, size int) map[string][]string {
		m := make(map[string][]string)
		for g, own := range portionsOf(gateways, servers, size) {
			m[gateways[g]] = namesAt(servers, own)
		}
		return m
	}
	without := func(names []string, i int) []string { return slices.Delete(slices.Clone(names), i, i+1) }
	gateways, servers := numbered("gw", 50), numbered("s", 500)
	before := portions(gateways, servers, 20)
	var byServer, byGateway float64
	for i := range 10 {
		gone := servers[i*7]
		byServer = max(byServer, lost(before, portions(gateways, without(servers, i*7), 20), func(_, s string) bool { return s == gone }))
		gone = gateways[i*3]
		byGateway = max(byGateway, lost(before, portions(without(gateways, i*3), servers, 20), func(g, _ string) bool { return g == gone }))
	}
	t.Logf("of the other pairs, %.1f%% move at most when 1 server of 500 goes, %.1f%% when 1 gateway of 50 does", 100*byServer, 100*byGateway)
	require.Less(t, byServer, 0.02)
	require.Less(t, byGateway, 0.10)
}

func BenchmarkPortions(b *testing.B) {
	gateways, servers := numbered("gw", 100), numbered("s", 10_000)
	b.ReportAllocs()
	for b.Loop() {
		portionsOf(gateways, servers, 100)
	}
}

func TestShareCounts(t *testing.T) {
	gateways := &Pool{}
	share := &Share{Of: gateways, Self: "b"}
	require.Equal(t, []int{1, 0}, []int{share.Count(), share.Index()}, "alone")
	require.NoError(t, gateways.Set(Endpoint{Addr: "c:1", Name: "c"}, Endpoint{Addr: "a:1", Name: "a"}))
	require.Equal(t, []int{3, 1}, []int{share.Count(), share.Index()}, "it counts itself")
	require.NoError(t, gateways.Set(Endpoint{Addr: "b:1", Name: "b"}, Endpoint{Addr: "c:1", Name: "c"}))
	require.Equal(t, []int{2, 0}, []int{share.Count(), share.Index()})
	gateways.Server("c").SetAdmin(Maint, "test")
	require.Equal(t, 2, share.Count(), "whatever the state")

	for n := range 40 {
		sum := 0
		for i := range 7 {
			part := partOf(n, i, 7)
			require.Equal(t, n == 0, part == 0)
			sum += part
		}
		require.Equal(t, max(n, min(n, 1)*7), sum)
	}
	require.Equal(t, -1, partOf(-1, 0, 3))
	require.Equal(t, 5, share.Part(9))
}

// A fleet of three in one process.
func TestPortionWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		gateways := &Pool{}
		names := []string{"gw-0", "gw-1", "gw-2"}
		set := func(names ...string) {
			var eps []Endpoint
			for _, n := range names {
				eps = append(eps, Endpoint{Name: n, Addr: "h:1"})
			}
			require.NoError(t, gateways.Set(eps...))
			synctest.Wait()
		}
		set(names...)
		var subscribers []func([]Endpoint, error)
		source := SourceFunc(func(ctx context.Context, update func([]Endpoint, error)) error {
			subscribers = append(subscribers, update)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		var pools []*Pool
		var mu sync.Mutex // three pools tell of their events at once
		var failed []error
		done := make(chan error, 3)
		for _, self := range names {
			p := &Pool{OnEvent: func(e Event) {
				if e.Kind == SourceFailed {
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, e.Err)
				}
			}}
			pools = append(pools, p)
			portion := &Portion{Source: source, Share: &Share{Of: gateways, Self: self}, Size: 4}
			go func() { done <- p.Follow(ctx, portion) }()
			synctest.Wait()
		}
		endpoints := make([]Endpoint, 12)
		for i := range endpoints {
			endpoints[i] = Endpoint{Addr: fmt.Sprintf("s-%d:1", i), MaxConns: 10, MinConns: 3, MaxQueue: -1}
		}
		tell := func(eps []Endpoint, err error) {
			for _, update := range subscribers {
				update(eps, err)
			}
			synctest.Wait()
		}
		// limits is the sum of MaxConns over all gateways, by server.
		limits := func(pools ...*Pool) map[string]int {
			sum := make(map[string]int)
			for _, p := range pools {
				for s := range p.All() {
					sum[s.Name()] += s.Endpoint().MaxConns
					require.LessOrEqual(t, s.Endpoint().MinConns, s.Endpoint().MaxConns)
					require.Equal(t, -1, s.Endpoint().MaxQueue)
				}
			}
			return sum
		}
		tell(endpoints, nil)
		require.Len(t, limits(pools...), 12)
		for name, sum := range limits(pools...) {
			require.Equal(t, 10, sum, name)
		}
		for _, p := range pools {
			require.Equal(t, 4, p.Usable())
		}

		tell(nil, errors.New("away"))
		require.Len(t, failed, 3)
		require.Equal(t, 4, pools[0].Usable(), "the last good set stays")

		set("gw-0", "gw-1") // gw-2 goes
		require.Equal(t, 6, pools[0].Usable())
		require.Equal(t, 6, pools[1].Usable())
		require.Len(t, limits(pools[:2]...), 12)
		cancel()
		for range 3 {
			require.ErrorIs(t, <-done, context.Canceled)
		}
	})
}

// Without a Size all gateways have all endpoints, and the limits are divided.
func TestPortionDivides(t *testing.T) {
	gateways := &Pool{}
	require.NoError(t, gateways.Set(Endpoint{Name: "a", Addr: "a:1"}, Endpoint{Name: "b", Addr: "b:1"}, Endpoint{Name: "c", Addr: "c:1"}))
	sums := make(map[string]Endpoint)
	first := make(map[int]bool)
	for _, self := range []string{"a", "b", "c"} {
		portion := &Portion{Share: &Share{Of: gateways, Self: self}}
		var endpoints []Endpoint
		for i := range 20 {
			endpoints = append(endpoints, Endpoint{Addr: fmt.Sprintf("s%d:1", i), MaxConns: 10, MinConns: 5, MaxQueue: 2})
		}
		for i, e := range portion.of(endpoints) {
			sum := sums[e.Addr]
			sum.MaxConns, sum.MinConns, sum.MaxQueue = sum.MaxConns+e.MaxConns, sum.MinConns+e.MinConns, sum.MaxQueue+e.MaxQueue
			sums[e.Addr] = sum
			if self == "a" {
				first[e.MaxConns] = true
			}
			require.NoError(t, endpoints[i].Check())
		}
	}
	require.Len(t, sums, 20)
	for _, sum := range sums {
		require.Equal(t, 10, sum.MaxConns)
		require.Equal(t, 5, sum.MinConns)
		require.Equal(t, 3, sum.MaxQueue, "at least 1 each")
	}
	require.Len(t, first, 2, "what is left over goes round")
}

func TestPortionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateways := &Pool{}
		share := &Share{Of: gateways, Self: "a"}
		broken := errors.New("broken")
		err := (&Portion{Share: share, Source: SourceFunc(func(context.Context, func([]Endpoint, error)) error { return broken })}).
			Watch(t.Context(), func([]Endpoint, error) { t.Error("told") })
		require.ErrorIs(t, err, broken)

		ctx, cancel := context.WithCancel(t.Context())
		var told [][]Endpoint
		done := make(chan error)
		go func() {
			once := SourceFunc(func(_ context.Context, update func([]Endpoint, error)) error {
				update([]Endpoint{{Addr: "s:1", MaxConns: 4}}, nil)
				return nil
			})
			done <- (&Portion{Share: share, Source: once}).Watch(ctx, func(eps []Endpoint, _ error) { told = append(told, eps) })
		}()
		synctest.Wait()
		require.NoError(t, gateways.Set(Endpoint{Name: "b", Addr: "b:1"}))
		synctest.Wait()
		require.Equal(t, 2, told[len(told)-1][0].MaxConns, "the set is final, the fleet is not")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)

		require.ErrorContains(t, (&Portion{Size: -1, Share: &Share{}}).Check(), "Portion.Size")
		require.ErrorContains(t, (&Portion{Share: &Share{}}).Check(), "Portion.Share.Self")
	})
}

// Two gateways have each half of the queue, and a third makes it a third.
func TestQueueOfAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateways := &Pool{}
		require.NoError(t, gateways.Set(Endpoint{Name: "a", Addr: "a:1"}, Endpoint{Name: "b", Addr: "b:1"}))
		p := &Pool{Queue: Queue{Size: 6, PerServer: 3, Timeout: -1, Share: &Share{Of: gateways, Self: "a"}}}
		require.NoError(t, p.Set(Endpoint{Addr: "s:1", MaxConns: 1}))
		lease, err := p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		full := make(chan error, 10)
		waiting := func(n int) (refused int) {
			for range n {
				go func() {
					_, err := p.Acquire(ctx, Request{})
					full <- err
				}()
			}
			synctest.Wait()
			for len(full) > 0 {
				require.ErrorIs(t, <-full, ErrQueueFull)
				refused++
			}
			return refused
		}
		require.Equal(t, 1, waiting(4), "3 of 6 may wait here")
		require.Equal(t, 2, p.Server("s:1").maxQueue())
		require.NoError(t, gateways.Set(Endpoint{Name: "a", Addr: "a:1"}))
		require.Equal(t, 0, waiting(3), "alone, all 6 may")
		require.Equal(t, 1, waiting(1))
		cancel()
		synctest.Wait()
		lease.Done(Outcome{})
		require.ErrorContains(t, (&Pool{Queue: Queue{Share: &Share{Of: gateways}}}).Check(), "Pool.Queue.Share.Self")
	})
}

// TestPortionTellsSetAndMistake: a source that reports a set and at once what is wrong with the rest
// of it, as those of stores do, has both told, also when the fleet changes later and when it fails
// right afterwards.
func TestPortionTellsSetAndMistake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoints := func(what string, n int) (all []Endpoint) {
			for _, name := range numbered(what, n) {
				all = append(all, Endpoint{Name: name, Addr: "10.0.0.1:80"})
			}
			return all
		}
		gateways := &Pool{}
		require.NoError(t, gateways.Set(endpoints("gw", 2)...))
		mistake, broken := errors.New("one of them is bad"), errors.New("broken")
		next := make(chan int)
		source := SourceFunc(func(ctx context.Context, update func([]Endpoint, error)) error {
			for n := range next {
				update(endpoints("s", n), nil)
				if n%2 == 1 {
					update(nil, mistake)
				}
				if n == 50 {
					return broken
				}
			}
			return nil
		})
		var size int
		var failed error
		ended := make(chan error, 1)
		go func() {
			ended <- (&Portion{Source: source, Share: &Share{Of: gateways, Self: "gw-000"}}).Watch(t.Context(), func(eps []Endpoint, err error) {
				if failed = err; err == nil {
					size = len(eps)
				}
			})
		}()
		for n := 1; n < 50; n++ {
			next <- n
			synctest.Wait()
			require.Equal(t, n, size)
			require.Equal(t, n%2 == 1, failed != nil, "%d: %v", n, failed)
		}
		require.NoError(t, gateways.Set(endpoints("gw", 3)...))
		synctest.Wait()
		require.Equal(t, 49, size)
		require.ErrorIs(t, failed, mistake, "it is still bad")
		next <- 50
		require.ErrorIs(t, <-ended, broken)
		require.Equal(t, 50, size)
	})
}
