// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
)

// A Source provides the set of endpoints and its changes.
type Source interface {
	// Watch calls update with the complete set, at first and after each change, or with
	// an error while the set is not known. It returns when ctx ends, or when it cannot
	// continue; then it may be called again. It calls update from one goroutine at a
	// time, and not after it has returned.
	Watch(ctx context.Context, update func([]Endpoint, error)) error
}

// SourceFunc makes a func a Source.
type SourceFunc func(ctx context.Context, update func([]Endpoint, error)) error

// Watch calls f(ctx, update).
func (f SourceFunc) Watch(ctx context.Context, update func([]Endpoint, error)) error {
	return f(ctx, update)
}

// The pauses after which a source that failed is watched again.
const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 30 * time.Second
	pauseJitter   = 0.2
)

// errEmpty is the error of an empty set that is not followed.
var errEmpty = errors.New("balance: empty set not followed: the source has no endpoints, and AllowEmpty is not set")

// Follow calls Set with each set of src until ctx ends, and then returns ctx's cause. It
// returns nil if src has ended. It returns at once with the error of [Pool.Check] or of the
// Check of src, or with a [*penstock.ConfigError] if p is a subset.
//
// An error does not empty p: the last good set stays, and the event SourceFailed,
// [Pool.SourceState] and [Pool.Explain] report the error. The same applies to a set that
// is refused, and to an empty one unless [Pool.AllowEmpty] is set. (Without OnEvent the
// error is logged to slog.Default.) A source that fails is watched again after 100 ms, with
// pauses that grow up to 30 s.
//
// An error that goes on is reported at first and then once a minute, until a good set has
// come. (Local ports in its text do not make it another.) One that comes within 100 ms after
// a good set and is the one before, as of a source with an entry that is wrong and stays so
// while others change, is not reported again. SourceState and Explain tell of both all the time.
func (p *Pool) Follow(ctx context.Context, src Source) error {
	p.init()
	if p.core.conf != p {
		return p.subsetError()
	}
	var wrong penstock.Mistakes
	wrong.Add("", p.Check())
	wrong.Need("Follow.src", src, "must be a source")
	wrong.In("Follow.src", src)
	if err := wrong.Err(); err != nil {
		return err
	}
	ctx = context.WithValue(ctx, followed{}, p.core) // see Doubts
	rnd := seeded(p.Seed)
	var told reports
	fail := func(err error) {
		err = shortened(err)
		p.sourceFailed(err, told.again(err.Error(), time.Now()))
	}
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		err := watchSource(ctx, src, func(eps []Endpoint, err error) {
			if err == nil && len(eps) == 0 && !p.AllowEmpty {
				err = errEmpty
			}
			if err == nil {
				err = p.Set(eps...)
			}
			if err != nil {
				fail(err)
				return
			}
			now := time.Now()
			told.works(now)
			p.core.sourceWorks(now)
			pause = shortestPause
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return nil
		}
		fail(err)
		if !sleep(ctx, rnd.around(pause, pauseJitter)) {
			return context.Cause(ctx)
		}
	}
}

// watchSource calls src.Watch and returns a panic as an error.
func watchSource(ctx context.Context, src Source, update func([]Endpoint, error)) (err error) {
	defer caughtAs(&err, "Source")
	return src.Watch(ctx, update)
}

// sourceFailed reports err: to the log if there is no OnEvent. Again says that it is no news.
func (p *Pool) sourceFailed(err error, again bool) {
	p.core.sourceFails(err, time.Now())
	switch {
	case again:
		return
	case p.OnEvent == nil:
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

// Poll is a source that calls Func at once and then periodically. An error of Func
// keeps the set.
type Poll struct {
	Func     func(context.Context) ([]Endpoint, error)
	Interval time.Duration // 0 means 10s
	Jitter   float64       // largest random change of the interval, as a fraction of it; 0 means 0.1, negative means none; at most 1
	Seed     uint64        // of the jitter; 0 means seeded at random
}

// Watch implements [Source].
func (p Poll) Watch(ctx context.Context, update func([]Endpoint, error)) error {
	if err := p.Check(); err != nil {
		return err
	}
	interval, jitter := p.Interval, p.Jitter
	if interval <= 0 {
		interval = 10 * time.Second
	}
	if jitter == 0 {
		jitter = 0.1
	}
	rnd := seeded(p.Seed)
	for {
		update(p.ask(ctx))
		if !sleep(ctx, rnd.around(interval, min(max(jitter, 0), 1))) {
			return context.Cause(ctx)
		}
	}
}

// ask calls Func and returns a panic as an error.
func (p *Poll) ask(ctx context.Context) (eps []Endpoint, err error) {
	defer caughtAs(&err, "Poll.Func")
	return p.Func(ctx)
}

// Merge is a source of the endpoints of several sources. If two have the same name,
// that of the earlier source is used. A source without a set so far has none, and one
// that fails keeps its last set: Merge watches it again, as [Pool.Follow] would.
type Merge struct {
	Sources []Source
	Seed    uint64 // of the pauses after failures; 0 means seeded at random
}

// Watch implements [Source]. It returns nil when all sources have ended.
func (g Merge) Watch(ctx context.Context, update func([]Endpoint, error)) error {
	if err := g.Check(); err != nil {
		return err
	}
	m := merger{sets: make([][]Endpoint, len(g.Sources)), update: update}
	var wg sync.WaitGroup
	for i, src := range g.Sources {
		seed := g.Seed
		if seed != 0 {
			seed += uint64(i) // of its own, so that the order of goroutines does not count
		}
		wg.Go(func() { m.watch(ctx, i, src, seeded(seed)) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// merger is the state of one Merge.
type merger struct {
	update func([]Endpoint, error)

	mu      sync.Mutex // guards the rest, and is not held while update is called
	sets    [][]Endpoint
	queue   []func() // updates to come, in order
	telling bool     // a goroutine is busy with them
}

// watch watches source i until it ends.
func (m *merger) watch(ctx context.Context, i int, src Source, rnd Rand) {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		err := watchSource(ctx, src, func(eps []Endpoint, err error) {
			if err == nil {
				pause = shortestPause
			}
			m.set(i, eps, err)
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		m.set(i, nil, err)
		if !sleep(ctx, rnd.around(pause, pauseJitter)) {
			return
		}
	}
}

// set stores the set of source i and passes on the merged set.
func (m *merger) set(i int, eps []Endpoint, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.queue = append(m.queue, func() { m.update(nil, err) })
	} else {
		m.sets[i] = slices.Clone(eps)
		all := m.merged()
		m.queue = append(m.queue, func() { m.update(all, nil) })
	}
	if m.telling { // also from within update
		return
	}
	m.telling = true
	defer func() { m.telling = false }()
	for len(m.queue) > 0 {
		next := m.queue[0]
		m.queue = m.queue[1:]
		m.unlocked(next)
	}
}

// unlocked calls f without the lock that its caller holds.
func (m *merger) unlocked(f func()) {
	m.mu.Unlock()
	defer m.mu.Lock()
	f()
}

// merged returns the endpoints of all sources. m.mu is held.
func (m *merger) merged() []Endpoint {
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
	return all
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

// Check returns what is wrong with p. [Poll.Watch] calls it.
func (p Poll) Check() error {
	var m penstock.Mistakes
	m.Need("Poll.Func", p.Func, "must be the func that returns the endpoints")
	m.If(p.Interval < 0, "Poll.Interval", p.Interval, notNegative)
	m.If(!(p.Jitter <= 1), "Poll.Jitter", p.Jitter, "must be at most 1, a part of the interval")
	return m.Err()
}

// Check returns what is wrong with g and its sources. [Merge.Watch] calls it.
func (g Merge) Check() error {
	var m penstock.Mistakes
	m.If(len(g.Sources) == 0, "Merge.Sources", g.Sources, "must have a source: without one there is nothing to follow")
	for i, s := range g.Sources {
		field := fmt.Sprintf("Merge.Sources[%d]", i)
		m.Need(field, s, "must be a source")
		m.In(field, s)
	}
	return m.Err()
}
