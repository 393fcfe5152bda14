// SPDX-License-Identifier: Apache-2.0

package health

import (
	"math"
	"time"
)

// A phase is where a server stands with an Outlier.
//
//	isIn --(row of errors, share, deviation)--> isOut --(time is up)--> onTrial
//	  ^                                           ^                        |
//	  |                                           +--------(bad)-----------+
//	  +--------------------(good, or nothing for Trial)--------------------+
type phase uint32

const (
	isIn phase = iota
	isOut
	onTrial
)

// An ejection is the record of one server: pure, it is told the time.
type ejection struct {
	now   phase
	until time.Time // of isOut, and of onTrial; zero means without end
	times int       // recent ejections
	kept  bool      // Kept was said in this interval
}

// eject begins an ejection and returns how long it lasts: base for each recent
// one, at most limit.
func (e *ejection) eject(now time.Time, base, limit, extra time.Duration) time.Duration {
	e.times++
	span := limit
	if limit/time.Duration(e.times) > base { // base * times, without its overflow
		span = base * time.Duration(e.times)
	}
	span = min(span, max(limit, base), math.MaxInt64-extra) + extra
	e.now, e.until = isOut, now.Add(span)
	return span
}

// try begins a trial, or continues it; a span of 0 has no end.
func (e *ejection) try(now time.Time, span time.Duration) {
	e.now, e.until = onTrial, time.Time{}
	if span > 0 {
		e.until = now.Add(span)
	}
}

// timed reports whether the phase ends at until.
func (e *ejection) timed() bool { return e.now != isIn && !e.until.IsZero() }

// tried reports whether the trial has lasted long enough.
func (e *ejection) tried(now time.Time) bool {
	return e.now == onTrial && e.timed() && !now.Before(e.until)
}

// due reports whether the time is up.
func (e *ejection) due(now time.Time) bool { return e.now == isOut && !now.Before(e.until) }

// sweep ends an interval: one that was spent in use makes up for one ejection.
func (e *ejection) sweep() {
	e.kept = false
	if e.now == isIn && e.times > 0 {
		e.times--
	}
}

// mayEject reports whether one more of members may be out: MaxShare of them, or
// one, and never if fewer than keep would be usable.
func mayEject(members, out, usableLeft int, share float64, keep int) bool {
	if usableLeft < keep {
		return false
	}
	return out == 0 || float64(out+1) <= share*float64(members)+1e-9
}

// bound returns the success rate below which a server stands out from rates:
// the mean less factor standard deviations (of the population).
func bound(rates []float64, factor float64) float64 {
	var sum, squares float64
	for _, r := range rates {
		sum += r
	}
	mean := sum / float64(len(rates))
	for _, r := range rates {
		squares += (r - mean) * (r - mean)
	}
	return mean - factor*math.Sqrt(squares/float64(len(rates)))
}
