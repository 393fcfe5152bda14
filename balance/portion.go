// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/penstock-lb/penstock"
)

// A Portion is the part of a source's endpoints that one gateway of a fleet uses:
//
//	source := &balance.Portion{Source: all, Share: share, Size: 20}
//	go pool.Follow(ctx, source)
//
// With a hundred gateways and ten thousand servers, connecting each gateway to each
// server would take a million connections and checks. With portions of 20 there are 2
// 000, and each server is used and checked by the same number of gateways, give or take
// one. Each gateway computes the portions of all, from only the names of gateways and
// endpoints, so that all agree.
//
// The limits of an endpoint (MaxConns, MinConns, MaxQueue) are those of the whole
// fleet: each gateway that has the endpoint gets its part of them, at least 1.
//
// When a gateway or an endpoint comes or goes, few others move: of 50 gateways with 20 of
// 500 servers each, less than 1 % of the other pairs when a server goes, and less than
// 10 % when a gateway does. Weights do not count, and health does not: the portions stay as they are
// while servers are down. Choose Size so that what is left then carries the load.
//
// (Google's Site Reliability Engineering, 2016, chapter 20, has the reasons, and
// another algorithm: the servers in shuffled rounds. There, more moves.)
type Portion struct {
	Source Source
	Share  *Share

	// Size is how many endpoints each gateway has, at least. It is raised where some
	// endpoint would have no gateway. 0 means all of them, with their limits divided.
	Size int
}

// Check reports what is wrong with the fields, as [penstock.ConfigError]s. Watch
// returns it.
func (p *Portion) Check() error {
	var m penstock.Mistakes
	m.Need("Portion.Source", p.Source, "must be the source of all endpoints")
	m.In("Portion.Source", p.Source)
	m.Need("Portion.Share", p.Share, "must say which gateway this is")
	m.In("Portion.Share", p.Share)
	m.If(p.Size < 0, "Portion.Size", p.Size, "must not be negative")
	return m.Err()
}

// Watch implements [Source].
func (p *Portion) Watch(ctx context.Context, update func([]Endpoint, error)) error {
	if err := p.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards what is heard, not update
	var heard []Endpoint
	var failed error            // what is wrong with that; nil after a good set
	var known, news, wrong bool // a set was heard; it is to be told; and so is failed
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	stop := p.Share.Of.Watch(func() {
		mu.Lock()
		news = true
		mu.Unlock()
		poke()
	})
	defer stop()

	var wg sync.WaitGroup
	defer wg.Wait()
	ended := make(chan error, 1)
	wg.Go(func() {
		ended <- watchSource(ctx, p.Source, func(eps []Endpoint, err error) {
			mu.Lock()
			if err != nil {
				failed, wrong = err, true
			} else {
				heard, failed = slices.Clone(eps), nil
				known, news, wrong = true, true, false
			}
			mu.Unlock()
			poke()
		})
	})
	defer cancel(errors.New("balance: Portion.Watch has returned")) // before wg.Wait

	tell := func() {
		mu.Lock()
		eps, err := heard, failed
		set, again := known && news, wrong
		news, wrong = false, false
		mu.Unlock()
		// A set may be followed at once by what is wrong with it: both count.
		if set {
			update(p.of(eps), nil)
		}
		if err != nil && (set || again) {
			update(nil, err)
		}
	}
	for {
		select {
		case <-wake:
			tell()
		case err := <-ended:
			if ctx.Err() != nil {
				return err
			}
			tell()
			if err != nil {
				return err
			}
			ended = nil // the set is final, but the fleet may still change
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// of returns the portion of this gateway.
func (p *Portion) of(all []Endpoint) []Endpoint {
	f := p.Share.fleet()
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].name()
	}
	var portions [][]int32
	if p.Size > 0 {
		portions = portionsOf(f.names, names, p.Size)
	}
	holders := make([]int, len(all)) // of each endpoint
	before := make([]int, len(all))  // of them, gateways that come before this one
	for g := range f.names {
		if portions == nil {
			break
		}
		for _, i := range portions[g] {
			holders[i]++
			if g < f.self {
				before[i]++
			}
		}
	}
	var mine []Endpoint
	give := func(i, rank, of int) {
		e := all[i]
		rank = int((uint64(rank) + Hash(names[i])) % uint64(of)) // so that what is left over does not always go to the first
		e.MaxConns, e.MaxQueue = partOf(e.MaxConns, rank, of), partOf(e.MaxQueue, rank, of)
		e.MinConns = min(partOf(e.MinConns, rank, of), max(e.MaxConns, 0))
		mine = append(mine, e)
	}
	if portions == nil {
		for i := range all {
			give(i, f.self, len(f.names))
		}
		return mine
	}
	for _, i := range portions[f.self] {
		give(int(i), before[i], holders[i])
	}
	return mine
}
