// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// A func or a method of the host's may panic. What runs under a lock, in the
// goroutine of another request or in one of ours is called through the helpers
// here: the panic is logged with its stack and that call is as if it had done
// nothing. A Pick or a Policy that panics in Acquire or Set is the caller's to
// recover from; nothing is left locked or taken then.

// caught is deferred around a call of the host's code.
func caught(what string) {
	if p := recover(); p != nil {
		logPanic(what, p)
	}
}

func logPanic(what string, p any) {
	defer func() { _ = recover() }() // a logger is the host's, too
	slog.Error("balance: "+what+" panicked", "panic", p, "stack", string(debug.Stack()))
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
	defer caught("Picker.Changed")
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

// matches reports whether e is of a subset. One that cannot be judged is not.
func matches(f func(Endpoint) bool, e Endpoint) bool {
	defer caught("Subset")
	return f(e)
}

// makePicker calls a policy. One that panics, or makes nothing, is replaced by the
// default.
func makePicker(policy Policy, v View) (p Picker) {
	defer func() {
		if p == nil {
			p = TwoChoices{}.Picker(v)
		}
	}()
	defer caught("Policy")
	return policy.Picker(v)
}

// nextPicker calls Next of a picker; nil asks the policy.
func nextPicker(n nexter, v View) Picker {
	defer caught("Picker.Next")
	return n.Next(v)
}

func isKeyed(k keyed) bool {
	defer caught("Picker.Keyed")
	return k.Keyed()
}

// ask is Pick for a caller that holds a lock: a picker that panics has no server.
func (g *group) ask(key uint64, f Filter) *Server {
	defer caught("Picker.Pick")
	return g.picker.Pick(key, f)
}

// most is Bound for a caller that holds a lock.
func (g *group) most(s *Server) int {
	defer caught("Picker.Bound")
	return g.bound.Bound(s)
}
