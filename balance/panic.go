// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Funcs and methods of the host may panic. Those that run under a lock, in the
// goroutine of another request or in one of ours are called through the helpers
// here: the panic is logged with its stack, and the call has no effect. If a
// Pick or a Policy panics in Acquire or Set, the caller may recover; no lock
// and no slot stays taken.

// caught is deferred around a call of the host's code.
func caught(what string) {
	if p := recover(); p != nil {
		logPanic(what, p)
	}
}

func logPanic(what string, p any) { hostPanic{what, p, debug.Stack()}.log() }

// A hostPanic is a panic of the host's code.
type hostPanic struct {
	what  string
	value any
	stack []byte
}

func (h hostPanic) log() {
	defer func() { _ = recover() }() // the logger is the host's code, too
	slog.Error("balance: "+h.what+" panicked", "panic", h.value, "stack", string(h.stack))
}

// hostPanics are the panics of calls under a lock of a pool. They are logged once it
// is free, as the host's logger may use the pool.
type hostPanics struct {
	waiting atomic.Bool
	mu      sync.Mutex
	list    []hostPanic
}

// mostPanics bounds what waits to be logged: a picker that panics does so for each
// waiter. Those beyond it are not logged.
const mostPanics = 16

// caught is deferred around a call of the host's code, under a lock or not.
func (hp *hostPanics) caught(what string) {
	p := recover()
	if p == nil {
		return
	}
	hp.mu.Lock()
	defer hp.mu.Unlock()
	if len(hp.list) < mostPanics {
		hp.list = append(hp.list, hostPanic{what, p, debug.Stack()})
	}
	hp.waiting.Store(true)
}

// log logs what was caught. Its caller holds no lock.
func (hp *hostPanics) log() {
	if hp.waiting.Load() {
		hp.logAll()
	}
}

func (hp *hostPanics) logAll() {
	hp.mu.Lock()
	list := hp.list
	hp.list = nil
	hp.waiting.Store(false)
	hp.mu.Unlock()
	for _, p := range list {
		p.log()
	}
}

// caughtAs is caught where there is an error to return.
func caughtAs(err *error, what string) {
	if p := recover(); p != nil {
		logPanic(what, p)
		*err = fmt.Errorf("balance: %s panicked: %v", what, p)
	}
}

// ownPicker is a picker of this package that has a method Changed.
type ownPicker interface{ own() }

func tellChanged(c changer, s *Server) {
	defer s.core.panics.caught("Picker.Changed")
	c.Changed(s)
}

func tellOutcome(f func(*Server, Outcome), s *Server, o Outcome) {
	defer caught("Observer")
	f(s, o)
}

func observeOutcome(c observer, s *Server, o Outcome) {
	defer caught("Picker.Observe")
	c.Observe(s, o)
}

func tellEvent(f func(Event), e Event) {
	defer caught("OnEvent")
	f(e)
}

func tellCut(a Attached, live bool, reason string) {
	defer caught("Attached.Cut")
	a.Cut(live, reason)
}

func tellWatcher(f func()) {
	defer caught("Watch")
	f()
}

// matches reports whether e is in a subset. It is false if the func panics.
func (hp *hostPanics) matches(f func(Endpoint) bool, e Endpoint) bool {
	defer hp.caught("Subset")
	return f(e)
}

// makePicker calls a policy. One that panics, or makes nothing, is replaced by the
// default.
func (hp *hostPanics) makePicker(policy Policy, v View) (p Picker) {
	defer func() {
		if p == nil {
			p = TwoChoices{}.Picker(v)
		}
	}()
	defer hp.caught("Policy")
	if p = policy.Picker(v); p == nil {
		panic("its Picker has returned nil") // so that it is logged
	}
	return p
}

// nextPicker calls Next of a picker; nil asks the policy.
func (hp *hostPanics) nextPicker(n nexter, v View) Picker {
	defer hp.caught("Picker.Next")
	return n.Next(v)
}

func (hp *hostPanics) isKeyed(k keyed) bool {
	defer hp.caught("Picker.Keyed")
	return k.Keyed()
}

// ask is Pick for a caller that may hold a lock: a picker that panics has no server, as
// one that returns a server of another pool.
func (g *group) ask(key uint64, f Filter) *Server {
	defer g.core.panics.caught("Picker.Pick")
	s := g.picker.Pick(key, f)
	if s != nil && s.core != g.core {
		panic(g.core.foreign(s)) // so that it is logged
	}
	return s
}

// foreign is the error of a picker that returned a server of another pool.
func (c *core) foreign(s *Server) error {
	return fmt.Errorf("%w: the Picker of pool %q returned server %q of pool %q: it must return one of its View, or nil", ErrNoServer, c.conf.Name, s.name, s.core.conf.Name)
}

// most is Bound for a caller that may hold a lock.
func (g *group) most(s *Server) int {
	defer g.core.panics.caught("Picker.Bound")
	return g.bound.Bound(s)
}
