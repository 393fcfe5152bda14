// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A stackLog counts the panics that were logged with their stack.
type stackLog struct {
	slog.Handler
	n atomic.Int32
}

func (l *stackLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stack" && strings.Contains(a.Value.String(), "panic_test.go") {
			l.n.Add(1)
		}
		return true
	})
	return nil
}

// captureStacks has the default logger count stacks until the test ends.
func captureStacks(t *testing.T) *stackLog {
	l := &stackLog{Handler: slog.NewTextHandler(io.Discard, nil)}
	was := slog.Default()
	slog.SetDefault(slog.New(l))
	t.Cleanup(func() { slog.SetDefault(was) })
	return l
}

// wild is host code of every kind that a pool calls; it panics while armed.
type wild struct {
	armed atomic.Bool
	skip  map[string]bool // what does not panic
}

func (w *wild) tick(what string) {
	if w.armed.Load() && !w.skip[what] {
		panic(what)
	}
}

type wildPicker struct {
	w *wild
	v balance.View
}

func (p wildPicker) Pick(_ uint64, f balance.Filter) *balance.Server {
	p.w.tick("Pick")
	for _, s := range p.v.Servers {
		if f.Allows(s) {
			return s
		}
	}
	return nil
}
func (p wildPicker) Changed(*balance.Server)                  { p.w.tick("Changed") }
func (p wildPicker) Observe(*balance.Server, balance.Outcome) { p.w.tick("Observe") }
func (p wildPicker) Keyed() bool                              { p.w.tick("Keyed"); return false }
func (p wildPicker) Next(v balance.View) balance.Picker       { p.w.tick("Next"); return wildPicker{p.w, v} }

func (w *wild) Picker(v balance.View) balance.Picker {
	w.tick("Picker")
	return wildPicker{w, v}
}

func (w *wild) Cut(bool, string) { w.tick("Cut") }

func (w *wild) pool(t *testing.T) *balance.Pool {
	p := &balance.Pool{
		Policy:    w,
		OnEvent:   func(balance.Event) { w.tick("OnEvent") },
		OnOutcome: []func(*balance.Server, balance.Outcome){func(*balance.Server, balance.Outcome) { w.tick("Observer") }},
		SlowStart: balance.SlowStart{Window: time.Minute},
	}
	p.Watch(func() { w.tick("Watch") })
	if err := p.Set(balance.Endpoint{Addr: "a:1", MaxConns: 1}, balance.Endpoint{Addr: "b:1", MaxConns: 1}); err != nil {
		t.Fatal(err)
	}
	p.Server("a:1").Attach(w)
	p.Server("b:1").Attach(w)
	return p
}

// Host code that a pool calls may panic, all of it, at each change and each
// lease: no lock stays taken, no slot is lost, and the pool goes on.
func TestPoolSurvivesHostPanics(t *testing.T) {
	log := captureStacks(t)
	for _, what := range []string{"Picker", "Changed", "Observe", "Keyed", "Next", "Cut", "OnEvent", "Observer", "Watch", "Subset"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wild{skip: map[string]bool{"Pick": true}}
				for _, other := range []string{"Picker", "Changed", "Observe", "Keyed", "Next", "Cut", "OnEvent", "Observer", "Watch", "Subset"} {
					w.skip[other] = other != what
				}
				p := w.pool(t)
				before := log.n.Load()
				w.armed.Store(true)
				sub := p.Subset(func(balance.Endpoint) bool { w.tick("Subset"); return true })
				use(t, p, 4)
				p.Server("a:1").Report(balance.Check, balance.Down, "test")
				use(t, p, 4)
				time.Sleep(2 * time.Minute) // the timer of slow start works on the pool, too
				if err := p.Set(balance.Endpoint{Addr: "b:1", MaxConns: 1}, balance.Endpoint{Addr: "c:1", MaxConns: 1}); err != nil {
					t.Fatal(err)
				}
				if what == "Next" || what == "Picker" { // Next is asked first
					w.skip["Next"], w.skip["Picker"] = false, false
					_ = p.Set(balance.Endpoint{Addr: "b:1", MaxConns: 1})
				}
				use(t, p, 4)
				w.armed.Store(false)
				if log.n.Load() == before {
					t.Error("no stack in the log")
				}
				_ = p.Set(balance.Endpoint{Addr: "b:1", MaxConns: 1}, balance.Endpoint{Addr: "d:1", MaxConns: 1})
				use(t, p, 4)
				use(t, sub, 1)
			})
		})
	}
}

// use takes and gives back n leases, more at once than there is room for.
func use(t *testing.T, p *balance.Pool, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			l, err := p.Acquire(t.Context(), balance.Request{})
			if err != nil {
				t.Errorf("Acquire = %v", err)
				return
			}
			time.Sleep(time.Millisecond)
			l.Done(balance.Outcome{})
		})
	}
	wg.Wait()
	for s := range p.All() {
		if s.InFlight() != 0 || s.Queued() != 0 {
			t.Errorf("%v: %d leases, %d waiters left", s, s.InFlight(), s.Queued())
		}
	}
}

// A picker that panics does so in the goroutine of its caller. Where it is asked
// for others, at the end of a lease and when servers change, it has no server,
// and the requests that wait go on waiting.
func TestPickPanicsInTheQueue(t *testing.T) {
	log := captureStacks(t)
	synctest.Test(t, func(t *testing.T) {
		w := &wild{}
		p := w.pool(t)
		a, err := p.Acquire(t.Context(), balance.Request{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.Acquire(t.Context(), balance.Request{})
		if err != nil {
			t.Fatal(err)
		}
		var got error
		var wg sync.WaitGroup
		wg.Go(func() {
			l, err := p.Acquire(t.Context(), balance.Request{})
			if got = err; err == nil {
				l.Done(balance.Outcome{})
			}
		})
		synctest.Wait()
		w.skip = map[string]bool{"Picker": true, "Changed": true, "Observe": true, "Keyed": true, "Next": true, "Cut": true, "OnEvent": true, "Observer": true, "Watch": true}
		w.armed.Store(true)
		p.Server("a:1").SetAdmin(balance.Drain, "test") // reviews the queue
		func() {
			defer func() { _ = recover() }()
			if l, err := p.Acquire(t.Context(), balance.Request{}); err == nil {
				t.Error("a picker that panics gave a lease")
				l.Done(balance.Outcome{})
			}
		}()
		w.armed.Store(false)
		b.Done(balance.Outcome{})
		a.Done(balance.Outcome{})
		wg.Wait()
		if got != nil && !errors.Is(got, balance.ErrNoServer) {
			t.Errorf("the waiter got %v", got)
		}
		if log.n.Load() == 0 {
			t.Error("no stack in the log")
		}
		p.Server("a:1").SetAdmin(balance.Ready, "test")
		use(t, p, 4)
	})
}

// A source that panics is one that fails: it is watched again.
func TestSourcePanics(t *testing.T) {
	captureStacks(t)
	good := balance.Endpoint{Addr: "a:1"}
	for name, src := range map[string]func(n *atomic.Int32) balance.Source{
		"Source": func(n *atomic.Int32) balance.Source {
			return balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
				if n.Add(1) == 1 {
					panic("boom")
				}
				update([]balance.Endpoint{good}, nil)
				<-ctx.Done()
				return ctx.Err()
			})
		},
		"Poll.Func": func(n *atomic.Int32) balance.Source {
			return balance.Poll{Func: func(context.Context) ([]balance.Endpoint, error) {
				if n.Add(1) == 1 {
					panic("boom")
				}
				return []balance.Endpoint{good}, nil
			}}
		},
	} {
		for _, merged := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := src(new(atomic.Int32))
					if merged {
						s = balance.Merge{Sources: []balance.Source{s}}
					}
					var p balance.Pool
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- p.Follow(ctx, s) }()
					time.Sleep(time.Minute)
					if p.Usable() != 1 {
						t.Error("the source was not watched again")
					}
					cancel()
					<-done
				})
			})
		}
	}
}

// A usingLog is the logger of a host that looks at its pools for each record.
type usingLog struct {
	slog.Handler
	use     atomic.Pointer[func()]
	records atomic.Int32
}

func (l *usingLog) Handle(context.Context, slog.Record) error {
	l.records.Add(1)
	(*l.use.Load())()
	return nil
}

// The log is told of a panic when no lock is held: the host's logger may use the
// pool, whatever it was that panicked.
func TestPanicsAreLoggedWithoutALock(t *testing.T) {
	l := &usingLog{Handler: slog.NewTextHandler(io.Discard, nil)}
	was := slog.Default()
	slog.SetDefault(slog.New(l))
	t.Cleanup(func() { slog.SetDefault(was) })
	all := []string{"Pick", "Picker", "Changed", "Observe", "Keyed", "Next", "Cut", "OnEvent", "Observer", "Watch", "Subset"}
	for _, what := range all {
		t.Run(what, func(t *testing.T) {
			nothing := func() {}
			l.use.Store(&nothing)
			before := l.records.Load()
			w := &wild{skip: make(map[string]bool)}
			for _, other := range all {
				w.skip[other] = other != what && !(what == "Picker" && other == "Next") // Next is asked first
			}
			p := w.pool(t)
			look := func() {
				w.armed.Store(false)
				p.Stats()
				p.Explain()
				p.Server("b:1").Report(balance.Check, balance.Up, time.Now().String())
				w.armed.Store(true)
			}
			one, err := p.Acquire(t.Context(), balance.Request{})
			if err != nil {
				t.Fatal(err)
			}
			two, err := p.Acquire(t.Context(), balance.Request{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var waiter sync.WaitGroup
			waiter.Go(func() { // those who wait are looked after under a lock
				if lease, err := p.Acquire(ctx, balance.Request{}); err == nil {
					lease.Done(balance.Outcome{})
				}
			})
			for p.Stats().Queued == 0 {
				runtime.Gosched()
			}
			l.use.Store(&look)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				w.armed.Store(true)
				p.Subset(func(balance.Endpoint) bool { w.tick("Subset"); return true })
				p.Server("a:1").Report(balance.Check, balance.Down, "test")
				_ = p.Set(balance.Endpoint{Addr: "b:1", MaxConns: 1}, balance.Endpoint{Addr: "c:1", MaxConns: 1})
				one.Done(balance.Outcome{})
				two.Done(balance.Outcome{})
				cancel()
				waiter.Wait()
			}()
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("the pool hangs")
			}
			if l.records.Load() == before {
				t.Error("nothing was logged")
			}
		})
	}
}

// noPicker is a policy that forgets to return one.
type noPicker struct{}

func (noPicker) Picker(balance.View) balance.Picker { return nil }

// A policy without a picker is logged, and the default takes its place.
func TestPolicyWithoutPicker(t *testing.T) {
	l := captureStacks(t)
	p := &balance.Pool{Policy: noPicker{}}
	if err := p.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
		t.Fatal(err)
	}
	lease, err := p.Acquire(t.Context(), balance.Request{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Done(balance.Outcome{})
	if n := l.n.Load(); n == 0 {
		t.Error("it was not logged")
	}
}
