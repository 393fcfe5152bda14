// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A Source knows which endpoints there are, and hears of changes.
type Source interface {
	// Watch calls update with the complete set, at first and after each change, or with
	// an error if the set is not known at present. It returns when ctx ends, or when it
	// cannot go on; it may be called again then. It calls update from one goroutine at
	// a time, and not after it has returned.
	Watch(ctx context.Context, update func([]Endpoint, error)) error
}

// SourceFunc makes a func a Source.
type SourceFunc func(ctx context.Context, update func([]Endpoint, error)) error

// Watch calls f(ctx, update).
func (f SourceFunc) Watch(ctx context.Context, update func([]Endpoint, error)) error {
	return f(ctx, update)
}

// errEmpty is why an empty set is not followed.
var errEmpty = errors.New("balance: empty set not followed")

// Follow calls Set with each set that src knows, until ctx ends, and then returns ctx's
// cause. It returns nil if src has come to its end, and a *ConfigError at once if p is
// a subset.
//
// Errors do not empty p: the last set that was good stays, and the event SourceFailed
// tells the error. That also goes for a set that is refused, and for an empty one
// unless [Pool.AllowEmpty] is set. (Without OnEvent it goes to slog.Default.) A source
// that fails is watched again after 100 ms, and ever later up to 30 s.
func (p *Pool) Follow(ctx context.Context, src Source) error {
	p.init()
	if p.core.conf != p {
		return p.subsetError()
	}
	const shortest, longest = 100 * time.Millisecond, 30 * time.Second
	for pause := shortest; ; pause = min(2*pause, longest) {
		err := src.Watch(ctx, func(eps []Endpoint, err error) {
			if err == nil && len(eps) == 0 && !p.AllowEmpty {
				err = errEmpty
			}
			if err == nil {
				err = p.Set(eps...)
			}
			if err != nil {
				p.sourceFailed(err)
				return
			}
			pause = shortest
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return nil
		}
		p.sourceFailed(err)
		if !sleep(ctx, jitter(pause, 0.2)) {
			return context.Cause(ctx)
		}
	}
}

// sourceFailed tells of err: the log, if nobody listens.
func (p *Pool) sourceFailed(err error) {
	if p.OnEvent == nil {
		slog.Warn("balance: source failed, the last good set stays", "pool", p.Name, "error", err)
		return
	}
	p.core.mu.Lock()
	p.core.emit(Event{Kind: SourceFailed, Reason: err.Error(), Err: err, Time: time.Now()})
	p.core.unlock()
}

// Static returns a source of endpoints that never change.
func Static(endpoints ...Endpoint) Source {
	return SourceFunc(func(ctx context.Context, update func([]Endpoint, error)) error {
		update(endpoints, nil)
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// Poll returns a source that asks f at once and then each interval, give or take a
// tenth; 0 means 10s. An error of f leaves the set as it is.
func Poll(interval time.Duration, f func(context.Context) ([]Endpoint, error)) Source {
	if interval <= 0 {
		interval = 10 * time.Second
	}
	return SourceFunc(func(ctx context.Context, update func([]Endpoint, error)) error {
		for {
			update(f(ctx))
			if !sleep(ctx, jitter(interval, 0.1)) {
				return context.Cause(ctx)
			}
		}
	})
}

// Merge returns a source of the endpoints of all sources together. If two have the same
// name that of the earlier source counts. A source that has not said anything yet has
// none, and one that fails keeps those it had: it is watched again by itself.
func Merge(sources ...Source) Source {
	return SourceFunc(func(ctx context.Context, update func([]Endpoint, error)) error {
		m := merger{sets: make([][]Endpoint, len(sources)), update: update}
		var wg sync.WaitGroup
		for i, src := range sources {
			wg.Go(func() { m.watch(ctx, i, src) })
		}
		wg.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil // all have come to their end
	})
}

// merger is the state of one Merge.
type merger struct {
	mu     sync.Mutex // guards sets, and makes updates one at a time
	sets   [][]Endpoint
	update func([]Endpoint, error)
}

// watch watches source i until it ends.
func (m *merger) watch(ctx context.Context, i int, src Source) {
	const shortest, longest = 100 * time.Millisecond, 30 * time.Second
	for pause := shortest; ; pause = min(2*pause, longest) {
		err := src.Watch(ctx, func(eps []Endpoint, err error) {
			if err == nil {
				pause = shortest
			}
			m.set(i, eps, err)
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		m.set(i, nil, err)
		if !sleep(ctx, jitter(pause, 0.2)) {
			return
		}
	}
}

// set notes what source i says and passes all sets on.
func (m *merger) set(i int, eps []Endpoint, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.update(nil, err)
		return
	}
	m.sets[i] = slices.Clone(eps)
	var all []Endpoint
	seen := make(map[string]bool)
	for _, set := range m.sets {
		for _, e := range set {
			if !seen[e.name()] {
				seen[e.name()] = true
				all = append(all, e)
			}
		}
	}
	m.update(all, nil)
}

// sleep waits for d and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter returns d, give or take up to part of it.
func jitter(d time.Duration, part float64) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*part*float64(d))
}
