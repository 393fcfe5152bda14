// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A size is how large the fleet is: as the README says, or smaller, for tests.
type size struct{ gateways, servers, keys int }

func sizeFor(length time.Duration) size {
	if length < 10*time.Second {
		return size{20, 1000, 10_000}
	}
	return size{100, 10_000, 1_000_000}
}

func names(what string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s-%04d", what, i))
	}
	return list
}

// A subsetting gives each gateway its servers.
type subsetting func(gateways, servers []string, size int) (portions [][]string)

// byPortion is balance.Portion.
func byPortion(gateways, servers []string, size int) (portions [][]string) {
	fleet := &balance.Pool{}
	var members, all []balance.Endpoint
	for _, g := range gateways {
		members = append(members, balance.Endpoint{Name: g, Addr: "in.memory:1"})
	}
	for _, s := range servers {
		all = append(all, balance.Endpoint{Name: s, Addr: "in.memory:1"})
	}
	if err := fleet.Set(members...); err != nil {
		panic(err)
	}
	for _, g := range gateways {
		ctx, cancel := context.WithCancel(context.Background())
		p := &balance.Portion{Source: balance.Static(all...), Share: &balance.Share{Of: fleet, Self: g}, Size: size}
		_ = p.Watch(ctx, func(eps []balance.Endpoint, _ error) {
			var own []string
			for _, e := range eps {
				own = append(own, e.Name)
			}
			portions = append(portions, own)
			cancel()
		})
	}
	return portions
}

// byChance lets each gateway draw its servers: what not to do.
func byChance(gateways, servers []string, size int) (portions [][]string) {
	for _, g := range gateways {
		rng := rand.New(rand.NewPCG(balance.Hash(g), 1))
		var own []string
		for _, i := range rng.Perm(len(servers))[:size] {
			own = append(own, servers[i])
		}
		portions = append(portions, own)
	}
	return portions
}

// byRounds shuffles the servers once for each round of gateways, and cuts them up. (Google's
// Site Reliability Engineering, 2016, chapter 20.)
func byRounds(gateways, servers []string, size int) (portions [][]string) {
	cuts := len(servers) / size
	var shuffled []string
	for i := range gateways {
		if i%cuts == 0 {
			rng := rand.New(rand.NewPCG(uint64(i/cuts), 1))
			shuffled = slices.Clone(servers)
			rng.Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
		}
		portions = append(portions, shuffled[i%cuts*size:][:size])
	}
	return portions
}

var subsettings = []struct {
	name string
	of   subsetting
}{{"Portion", byPortion}, {"shuffled rounds", byRounds}, {"drawn by each", byChance}}

// skew shows how much more than the average the busiest server gets, when each gateway spreads its
// work evenly over its part.
func skew(_ *testing.T, _ uint64, length time.Duration) *chart {
	n := sizeFor(length)
	c := &chart{title: fmt.Sprintf("The busiest of %d servers of %d gateways (uneven: one in ten has 5 times the work)", n.servers, n.gateways), y: "times the average", log: true}
	gateways, servers := names("gw", n.gateways), names("server", n.servers)
	for _, s := range subsettings {
		for _, uneven := range []bool{false, true} {
			if uneven && s.name != "Portion" {
				continue
			}
			name := s.name
			if uneven {
				name += ", uneven"
			}
			c.series = append(c.series, series{name, nil})
		}
	}
	for _, part := range []int{100, 50, 25} {
		each := n.servers / part
		c.x = append(c.x, fmt.Sprintf("%d servers each", each))
		at := 0
		for _, s := range subsettings {
			portions := s.of(gateways, servers, each)
			for _, uneven := range []bool{false, true} {
				if uneven && s.name != "Portion" {
					continue
				}
				c.series[at].values = append(c.series[at].values, busiest(portions, len(servers), uneven))
				at++
			}
		}
	}
	return c
}

// busiest returns the work of the server that has most, as times the average.
func busiest(portions [][]string, servers int, uneven bool) float64 {
	work, total := map[string]float64{}, 0.0
	for g, own := range portions {
		mine := 1.0
		if uneven && g%10 == 0 {
			mine = 5
		}
		total += mine
		for _, s := range own {
			work[s] += mine / float64(len(own))
		}
	}
	most := 0.0
	for _, w := range work {
		most = max(most, w)
	}
	return most / (total / float64(servers))
}

// moved shows which part of all pairs of a gateway and a server changes when one comes or goes.
func moved(_ *testing.T, _ uint64, length time.Duration) *chart {
	n := sizeFor(length)
	c := &chart{
		title: fmt.Sprintf("Pairs of a gateway and a server that change: %d gateways, each with %d of %d servers", n.gateways, n.servers/50, n.servers),
		y:     "percent of all pairs",
		x:     []string{"a gateway goes", "a gateway comes", "a server goes", "1 % of servers replaced"},
	}
	gateways, servers, each := names("gw", n.gateways), names("server", n.servers), n.servers/50
	middle := n.gateways / 2
	replaced := slices.Concat(servers[n.servers/100:], names("new", n.servers/100))
	for _, s := range subsettings[:2] {
		before := pairs(gateways, s.of(gateways, servers, each))
		var values []float64
		for _, after := range []struct{ gateways, servers []string }{
			{slices.Concat(gateways[:middle], gateways[middle+1:]), servers},
			{slices.Insert(slices.Clone(gateways), middle, "gw-0000x"), servers},
			{gateways, servers[1:]},
			{gateways, replaced},
		} {
			now := pairs(after.gateways, s.of(after.gateways, after.servers, each))
			changed := 0
			for p := range before {
				if !now[p] {
					changed++
				}
			}
			values = append(values, 100*float64(changed)/float64(len(before)))
		}
		c.series = append(c.series, series{s.name, values})
	}
	least := 100 / float64(n.gateways)
	c.series = append(c.series, series{"least possible", []float64{least, 0, 100 / float64(n.servers), 1}})
	return c
}

func pairs(gateways []string, portions [][]string) map[[2]string]bool {
	all := make(map[[2]string]bool)
	for g, own := range portions {
		for _, s := range own {
			all[[2]string{gateways[g], s}] = true
		}
	}
	return all
}
