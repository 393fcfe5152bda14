// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// Observe says what errors in live traffic do to a server that a [Checker]
// probes. It takes effect when the pools report to [Checker.Observed].
//
// Source: HAProxy's observe, error-limit and on-error; src/check.c, __health_adjust.
type Observe struct {
	Errors   int                          // in a row that count; 0 means 10
	Action   ErrorAction                  // what they do; 0 means FailCheck
	Classify func(balance.Outcome) Rating // nil means Layer7
}

// An ErrorAction is what a row of errors in live traffic does. Each of them
// also brings the next probe forward, so that it is at most [Checker.Fast] away.
type ErrorAction uint8

const (
	FailCheck   ErrorAction = iota // counts as one failed probe
	FastCheck                      // nothing else
	SuddenDeath                    // counts as one failed probe, and one more takes the server down
	MarkDown                       // takes the server down
)

// A Rating is what an outcome of live traffic says of a server.
type Rating uint8

const (
	Ignored Rating = iota // nothing: the client went away, a reused connection was stale
	Good
	Bad
)

// Layer4 judges by connections alone: Bad if one could not be made.
func Layer4(o balance.Outcome) Rating {
	switch o.Class {
	case balance.ClientAborted, balance.Canceled, balance.Stale:
		return Ignored
	case balance.ConnectFailed, balance.ConnectTimeout, balance.TLSFailed:
		return Bad
	}
	return Good
}

// Layer7 judges by answers too: Bad if there was none, if it was broken, or if
// its status is 500 or above but for 501 and 505, which answer the request and
// say nothing of the server.
func Layer7(o balance.Outcome) Rating {
	switch o.Class {
	case balance.ClientAborted, balance.Canceled, balance.Stale:
		return Ignored
	case balance.OK:
		return Good
	case balance.StatusError:
		if o.Status == 501 || o.Status == 505 {
			return Good
		}
	}
	return Bad
}

// judge calls a Classify of the host's. One that panics ignores the outcome.
func judge(log *slog.Logger, classify func(balance.Outcome) Rating, o balance.Outcome) (v Rating) {
	defer caught(log, "Classify")
	return classify(o)
}

// watch is what Observed and Status look things up in.
type watch struct {
	round   *round
	targets map[*balance.Server]*target
}

// Observed takes in how a piece of live work went. Put it into the OnOutcome of
// the pools:
//
//	pool.OnOutcome = append(pool.OnOutcome, checker.Observed)
//
// It never blocks, and does nothing while Run does not run. Any goroutine may call it.
func (c *Checker) Observed(s *balance.Server, o balance.Outcome) {
	w := c.watched.Load()
	if w == nil {
		return
	}
	t := w.targets[s]
	if t == nil {
		return
	}
	verdict := Ignored
	if c.Observe.Classify == nil {
		verdict = Layer7(o)
	} else {
		verdict = judge(w.round.log, c.Observe.Classify, o)
	}
	switch verdict {
	case Good:
		if t.errors.Load() != 0 { // a write would move the cache line for nothing
			t.errors.Store(0)
		}
	case Bad:
		if int(t.errors.Add(1)) < w.round.errorLimit || t.waiting.Load() != nil {
			return
		}
		last := o // a copy, so that o itself need not be on the heap
		if !t.waiting.CompareAndSwap(nil, &last) {
			return
		}
		w.round.observe(t)
	}
}

// observe hands a target with a row of errors to Run's goroutine.
func (r *round) observe(t *target) {
	r.mu.Lock()
	r.rows = append(r.rows, t)
	r.mu.Unlock()
	poke(r.wake)
}

// observed does what Observe.Action says for each row of errors.
func (r *round) observed(now time.Time) {
	r.mu.Lock()
	rows := r.rows
	r.rows = nil
	r.mu.Unlock()
	for _, t := range rows {
		t.errors.Store(0)
		o := t.waiting.Swap(nil)
		if t.gone || t.paused {
			continue
		}
		if due := now.Add(r.fast); !t.busy && due.Before(t.due) {
			t.due = due
			r.due.set(t)
		}
		switch r.c.Observe.Action {
		case FastCheck:
			continue
		case SuddenDeath:
			t.machine.sudden()
		case MarkDown:
			t.machine.doomed()
		}
		t.machine.fail()
		err := &Error{Code: CodeStatus, Step: "live traffic", Text: fmt.Sprintf("%d errors in a row, last %s", r.errorLimit, describe(*o)), Err: o.Err}
		r.tell(Result{Err: err, Passive: true}, t, now)
	}
}

// describe names an outcome for a reason.
func describe(o balance.Outcome) string {
	if o.Class == balance.StatusError {
		return fmt.Sprintf("status %d", o.Status)
	}
	return fmt.Sprint(o.Class)
}
