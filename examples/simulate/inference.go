// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/examples/inference/model"
)

// byLoad are the numbers that the servers report each second.
var byLoad = []balance.Scorer{{Metric: "waiting"}, {Metric: "cache", Weight: 10}}

var routers = []contender{
	{"Random", balance.Random{}},
	{"RoundRobin", balance.RoundRobin{}},
	{"LeastConn", balance.LeastConn{}},
	{"Ring 1.25", balance.Ring{Bound: 1.25}},
	{"Scored by load", balance.Scored{Scorers: byLoad}},
	{"Scored by load and prompt", balance.Scored{Scorers: byLoad, Affinity: 8}},
}

// models are eight simulated servers of a language model, and what clients saw of them.
type models struct {
	pool    *balance.Pool
	servers map[string]*model.Server

	mu    sync.Mutex
	first []sample // the first token of each answer
}

// talk runs conversations for some time: perSecond requests on average. Each begins with
// the instructions of one of twenty applications, some far more popular than others, has some
// turns, and comes back after a while with all that was said before.
func (m *models) talk(seed uint64, perSecond float64, length time.Duration) {
	const turns = 6
	rng := rand.New(rand.NewPCG(seed, 3))
	apps := rand.NewZipf(rng, 1.1, 2, 19)
	var all sync.WaitGroup
	for id, begin := uint64(0), time.Now(); time.Since(begin) < length; id++ {
		time.Sleep(time.Duration(rng.ExpFloat64() / perSecond * turns * float64(time.Second)))
		app, own := apps.Uint64(), rand.New(rand.NewPCG(seed, id))
		all.Go(func() {
			var prompt []uint64
			say := func(who uint64, blocks int) {
				for range blocks {
					prompt = append(prompt, who<<16|uint64(len(prompt)))
				}
			}
			say(app, 40)
			for range turns {
				say(1000+id, 5+own.IntN(50))
				m.request(id, prompt)
				say(1000+id, 6)
				time.Sleep(time.Duration(own.ExpFloat64() * float64(5*time.Second)))
			}
		})
	}
	all.Wait()
}

// request asks for one answer, of two seconds.
func (m *models) request(id uint64, prompt []uint64) {
	begin := time.Now()
	lease, err := m.pool.Acquire(context.Background(), balance.Request{Key: balance.Hash(fmt.Sprint("conversation", id))})
	if err != nil {
		panic(err)
	}
	_ = m.servers[lease.Server().Name()].Generate(context.Background(), prompt, 2, func(i int) error {
		if i == 0 {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.first = append(m.first, sample{latency: time.Since(begin)})
		}
		return nil
	})
	lease.Done(balance.Outcome{})
}

// poll reports the figures of each server once a second, until ctx ends.
func (m *models) poll(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for s := range m.pool.All() {
			f := m.servers[s.Name()].Figures()
			s.ReportLoad(balance.Load{Name: "waiting", Value: float64(f.Waiting)}, balance.Load{Name: "cache", Value: f.CacheUsage()})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hitRate returns the part of all blocks of prompts that were in a cache, in percent.
func (m *models) hitRate() float64 {
	hits, asked := 0, 0
	for _, s := range m.servers {
		f := s.Figures()
		hits, asked = hits+f.Hits, asked+f.Asked
	}
	return 100 * float64(hits) / float64(max(asked, 1))
}

// converse draws a number of models under more and more load, for each policy.
func converse(t *testing.T, seed uint64, length time.Duration, c *chart, number func(*models) float64) *chart {
	c.lines = true
	for _, r := range routers {
		c.series = append(c.series, series{r.name, nil})
	}
	for _, perSecond := range []float64{4, 8, 12, 16, 20, 24} {
		c.x = append(c.x, fmt.Sprintf("%.0f requests/s", perSecond))
		for i, r := range routers {
			bubble(t, func() {
				m := &models{pool: &balance.Pool{Policy: r.policy, Seed: seed}, servers: map[string]*model.Server{}}
				var eps []balance.Endpoint
				for k := range 8 {
					name := fmt.Sprint("server", k)
					m.servers[name] = &model.Server{Batch: 16, Blocks: 3000, Prefill: 4 * time.Millisecond, Decode: 2 * time.Second}
					eps = append(eps, balance.Endpoint{Name: name, Addr: "in.memory:1"})
				}
				if err := m.pool.Set(eps...); err != nil {
					panic(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go m.poll(ctx)
				m.talk(seed, perSecond, 4*length)
				c.series[i].values = append(c.series[i].values, number(m))
			})
		}
	}
	return c
}

// cacheHits shows how much of the prompts is found in the caches.
func cacheHits(t *testing.T, seed uint64, length time.Duration) *chart {
	c := &chart{title: "Conversations with eight LLM servers: prompts found in the KV cache", y: "percent"}
	return converse(t, seed, length, c, (*models).hitRate)
}

// firstToken shows how long clients wait for the first token.
func firstToken(t *testing.T, seed uint64, length time.Duration) *chart {
	c := &chart{title: "Conversations with eight LLM servers: time to first token, p90", y: "milliseconds", log: true}
	return converse(t, seed, length, c, func(m *models) float64 { return quantile(m.first, 0.9) })
}
