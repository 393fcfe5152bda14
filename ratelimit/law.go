// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math"
	"time"
)

// A Law decides. It is a pure function over one word of state per key, which
// is what lets [Keyed] and [Limiter] hold a key in a few bytes and change it
// by compare-and-swap: GCRA, Window, InFlight and Unlimited are laws, and a
// host can write its own.
//
// A state of 0 is that of a key never seen. A law returns no negative state.
// Times are durations since the start of some clock that does not go back.
type Law interface {
	// Take decides on taking n at time now and returns the state that
	// follows. With n of 0 it takes nothing and tells how things stand; a
	// Reset of 0 then means that state is worth no more than 0 and may be
	// forgotten. N and now are not negative. Take need not set Cost and At.
	Take(state int64, now time.Duration, n int) (next int64, d Decision)

	// Refund returns the state without what d took.
	Refund(state int64, now time.Duration, d Decision) (next int64)
}

// A Rate is a number of events in a span of time: Rate{100, time.Minute}.
type Rate struct {
	Count int           // 0 or negative means none: it admits nothing
	Per   time.Duration // 0 means 1s; more than 73 years count as that
}

// longest is the longest span that laws reckon with. It leaves room for sums
// of a few.
const longest = Never / 4

// PerSecond returns the rate of n events a second.
func PerSecond(n int) Rate { return Rate{n, time.Second} }

// PerMinute returns the rate of n events a minute.
func PerMinute(n int) Rate { return Rate{n, time.Minute} }

// PerHour returns the rate of n events an hour.
func PerHour(n int) Rate { return Rate{n, time.Hour} }

// span returns Per or its default.
func (r Rate) span() time.Duration {
	if r.Per <= 0 {
		return time.Second
	}
	return min(r.Per, longest)
}

// interval returns the time that one event uses up, rounded up to a
// nanosecond so that rounding never admits more, or 0 if nothing is admitted.
func (r Rate) interval() time.Duration {
	if r.Count <= 0 {
		return 0
	}
	per, n := r.span(), time.Duration(r.Count)
	return (per-1)/n + 1
}

// Unlimited is the law that admits everything: the answer of Keyed.LawOf for
// the keys that are exempt.
type Unlimited struct{}

// Take admits.
func (Unlimited) Take(state int64, _ time.Duration, _ int) (int64, Decision) {
	return state, Decision{OK: true, Limit: math.MaxInt, Remaining: math.MaxInt}
}

// Refund changes nothing.
func (Unlimited) Refund(state int64, _ time.Duration, _ Decision) int64 { return state }

// decide is law.Take into d, which is zero. Decisions are long, and the common
// laws write them where they are wanted: copies of them were half the cost.
func decide(law Law, state int64, now time.Duration, n int, d *Decision) (next int64) {
	switch law := law.(type) {
	case GCRA:
		next = law.take(state, now, n, d)
	case Window:
		next = law.take(state, now, n, d)
	default:
		next, *d = law.Take(state, now, n)
	}
	if d.OK {
		d.Cost = n
	}
	d.At = now
	return next
}

// times returns n times d, or longest if that is less. Neither is negative.
func times(n int, d time.Duration) time.Duration {
	if n > 0 && d > longest/time.Duration(n) {
		return longest
	}
	return time.Duration(n) * d
}

// later returns t+d, or Never if that is less. D is not negative.
func later(t, d time.Duration) time.Duration {
	if t > Never-d {
		return Never
	}
	return t + d
}

// nothing is what a limit of nothing answers.
func nothing(n int) Decision { return Decision{OK: n <= 0, Over: n > 0, Wait: waitNever(n)} }

func waitNever(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	return Never
}

// orDefault returns n, or def if n is 0, negative or not a number.
func orDefault[N int | float64 | time.Duration](n, def N) N {
	if n > 0 {
		return n
	}
	return def
}
