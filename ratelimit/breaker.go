// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Breaker is a circuit breaker: it watches how work for something ends, and when too
// much of it fails, it refuses work for a while, so that callers fail at once and do not
// wait for what is down.
//
//	state        event                                       next
//	Closed       Share of the last Window failed             Open
//	Open         Open has passed and a caller asks           HalfOpen; the caller is the trial
//	HalfOpen     the trial succeeds                          Recovering, or Closed without a Ramp
//	HalfOpen     the trial fails                             Open
//	HalfOpen     the trial is canceled, or takes Open        HalfOpen; the next caller is the trial
//	Recovering   Share of what was let through failed        Open
//	Recovering   Ramp has passed                             Closed
//
// Closed lets all through, Open nothing, and HalfOpen one at a time. Recovering lets a
// share through that grows from nothing to all in Ramp, at random. Volume is what must
// have ended in the window before Closed judges; Recovering judges by that share of it
// which it lets through, so that at its beginning one failure is enough. What was let
// through before a Breaker opened changes nothing afterwards.
//
// One Breaker is for one thing that fails as a whole, such as a pool. Single servers are
// taken out, and brought back by trial, by health.Outlier. l7.CircuitBreaker is the
// handler for HTTP.
//
// The zero Breaker is ready to use. All methods may be called by several goroutines at
// once; the fields must not change after first use, and a Breaker must not be copied.
//
// Source: Nygard, "Release It!", 2007, "Circuit Breaker".
type Breaker struct {
	Share  float64       // of failures in Window; 0 means 0.5; at most 1
	Volume int           // ends in Window that it takes to judge; 0 means 20
	Window time.Duration // 0 means 10s
	Open   time.Duration // refuses everything for so long; 0 means 5s
	Ramp   time.Duration // from the first success to all; 0 means 10s, negative means none: all at once

	OnChange func(BreakerChange) // called without a lock, by callers at once; must not block; may be nil

	once    sync.Once
	clock   clock
	mode    atomic.Uint64 // epoch and state, for what need not take the lock
	until   atomic.Int64  // when Open ends, on clock; set before mode says so
	refused atomic.Uint64

	mu    sync.Mutex
	taken uint64
	c     circuit
}

// BreakerState is the state of a [Breaker].
type BreakerState uint8

const (
	BreakerClosed     BreakerState = iota // all is let through
	BreakerOpen                           // nothing is
	BreakerHalfOpen                       // one at a time
	BreakerRecovering                     // a growing share
)

func (s BreakerState) String() string {
	names := [...]string{"closed", "open", "half-open", "recovering"}
	if int(s) < len(names) {
		return names[s]
	}
	return strconv.Itoa(int(s))
}

// MarshalText returns what String does, for JSON and slog.
func (s BreakerState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A BreakerChange is a change of the state of a [Breaker].
type BreakerChange struct {
	From, To BreakerState
	Failed   int // of Ended, in the time that was judged
	Ended    int
}

// A BreakerPermit is the right to do one piece of work. One of Succeed, Fail and Cancel
// must be called, once, at the end of it. On the zero BreakerPermit they do nothing.
type BreakerPermit struct {
	b     *Breaker
	epoch uint64
	trial bool
}

// Allow reports whether a piece of work may begin. If not, wait is the time until the
// next trial, 0 if that is not known.
func (b *Breaker) Allow() (p BreakerPermit, wait time.Duration, ok bool) {
	b.once.Do(b.init)
	switch mode := b.mode.Load(); BreakerState(mode & 3) {
	case BreakerClosed:
		return BreakerPermit{b: b, epoch: mode >> 2}, 0, true
	case BreakerOpen:
		if wait := time.Duration(b.until.Load()) - b.clock.now(); wait > 0 {
			b.refused.Add(1)
			return BreakerPermit{}, wait, false
		}
	}
	b.mu.Lock()
	before := b.c.state
	trial, wait, ok := b.c.allow(b.clock.now(), rand.Float64())
	p = BreakerPermit{b: b, epoch: b.c.epoch, trial: trial}
	b.unlock(before)
	if !ok {
		b.refused.Add(1)
		return BreakerPermit{}, wait, false
	}
	return p, 0, true
}

// State returns the present state. Open and Recovering last until a caller asks.
func (b *Breaker) State() BreakerState {
	b.once.Do(b.init)
	return BreakerState(b.mode.Load() & 3)
}

// Stats returns the totals until now: Taken is what has ended, in whatever way.
func (b *Breaker) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Stats{Taken: b.taken, Refused: b.refused.Load()}
}

// Trial reports whether p is for the one piece of work that a half-open [Breaker] lets
// through. It ends as soon as it is known that the work goes well.
func (p BreakerPermit) Trial() bool { return p.trial }

// Succeed ends work that went well.
func (p BreakerPermit) Succeed() { p.end(succeeded) }

// Fail ends work that failed because of what the [Breaker] watches.
func (p BreakerPermit) Fail() { p.end(failed) }

// Cancel ends work that says nothing: the caller gave up, or did not use it.
func (p BreakerPermit) Cancel() { p.end(canceled) }

func (p BreakerPermit) end(how ending) {
	b := p.b
	if b == nil {
		return
	}
	b.mu.Lock()
	b.taken++
	if p.epoch != b.c.epoch {
		b.mu.Unlock()
		return
	}
	before := b.c.state
	b.c.end(b.clock.now(), how)
	b.unlock(before)
}

func (b *Breaker) init() {
	c := &b.c
	c.share, c.volume = orDefault(b.Share, 0.5), orDefault(b.Volume, 20)
	c.slot = max(1, min(orDefault(b.Window, 10*time.Second), longest)/slots)
	c.open = min(orDefault(b.Open, 5*time.Second), longest)
	c.ramp = b.Ramp
	if c.ramp == 0 {
		c.ramp = 10 * time.Second
	}
}

// unlock ends a critical section that began in state before.
func (b *Breaker) unlock(before BreakerState) {
	change := BreakerChange{From: before, To: b.c.state, Failed: b.c.judged.failed, Ended: b.c.judged.ended}
	b.until.Store(int64(b.c.since + b.c.open))
	b.mode.Store(b.c.epoch<<2 | uint64(b.c.state))
	b.mu.Unlock()
	if change.From != change.To && b.OnChange != nil {
		b.OnChange(change)
	}
}

type ending uint8

const (
	succeeded ending = iota
	failed
	canceled
)

const slots = 10 // of the window

// tally counts ends.
type tally struct{ failed, ended int }

// A circuit is the state machine of a [Breaker].
type circuit struct {
	share      float64
	volume     int
	slot       time.Duration // length of a slot of the window
	open, ramp time.Duration

	state BreakerState
	epoch uint64        // of openings and trials: what began in another one does not count
	since time.Duration // when the state began; half-open: when the trial did
	trial bool          // one is in progress

	at     time.Duration // number of the latest slot
	window [slots]tally
	sum    tally
	judged tally // what the last change followed from
}

// allow decides about one piece of work; draw is a random number in [0, 1).
func (c *circuit) allow(now time.Duration, draw float64) (trial bool, wait time.Duration, ok bool) {
	switch c.state {
	case BreakerOpen:
		if wait := c.since + c.open - now; wait > 0 {
			return false, wait, false
		}
		c.enter(BreakerHalfOpen, now)
		return c.try(now)
	case BreakerHalfOpen:
		if c.trial && now-c.since < c.open {
			return false, 0, false
		}
		return c.try(now)
	case BreakerRecovering:
		if part := c.part(now); part < 1 {
			return false, 0, draw < part
		}
		c.enter(BreakerClosed, now)
	}
	return false, 0, true
}

// try makes a piece of work the trial.
func (c *circuit) try(now time.Duration) (trial bool, wait time.Duration, ok bool) {
	c.epoch++
	c.trial, c.since = true, now
	return true, 0, true
}

// part returns the share that a recovering circuit lets through.
func (c *circuit) part(now time.Duration) float64 {
	return min(1, float64(now-c.since)/float64(c.ramp))
}

// end takes in how a piece of work of this epoch ended.
func (c *circuit) end(now time.Duration, how ending) {
	if c.state == BreakerHalfOpen {
		c.trial = false
		switch {
		case how == failed:
			c.judged = tally{1, 1}
			c.trip(now)
		case how == succeeded && c.ramp > 0:
			c.judged = tally{0, 1}
			c.enter(BreakerRecovering, now)
		case how == succeeded:
			c.judged = tally{0, 1}
			c.enter(BreakerClosed, now)
		}
		return
	}
	if how == canceled {
		return
	}
	c.count(now, how)
	need := float64(c.volume)
	if c.state == BreakerRecovering {
		need *= c.part(now)
	}
	if how == failed && float64(c.sum.ended) >= need && float64(c.sum.failed) >= c.share*float64(c.sum.ended) {
		c.judged = c.sum
		c.trip(now)
	}
}

// count adds an end to the window.
func (c *circuit) count(now time.Duration, how ending) {
	at := max(c.at, now/c.slot)
	for passed := min(at-c.at, slots); passed > 0; passed-- {
		old := &c.window[(at-passed+1)%slots]
		c.sum.failed -= old.failed
		c.sum.ended -= old.ended
		*old = tally{}
	}
	c.at = at
	slot := &c.window[at%slots]
	slot.ended++
	c.sum.ended++
	if how == failed {
		slot.failed++
		c.sum.failed++
	}
}

// trip opens the circuit.
func (c *circuit) trip(now time.Duration) {
	c.epoch++
	c.enter(BreakerOpen, now)
	c.window, c.sum = [slots]tally{}, tally{}
}

func (c *circuit) enter(s BreakerState, now time.Duration) { c.state, c.since = s, now }
