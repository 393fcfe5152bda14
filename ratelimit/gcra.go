// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "time"

// GCRA is the generic cell rate algorithm: a token bucket whose whole state
// is the time at which the bucket will be full. Each event uses up an
// interval of Per/Count; in any span of time t it admits at most
//
//	Burst + t / interval
//
// events, those it makes wait counted from the end of their wait. The
// interval is rounded up to a whole nanosecond: at a million events a second
// the rate is at most 0.1 % below what was asked for, and no rate is above one
// event a nanosecond. A bucket that takes more than 73 years to fill is one
// of 73 years: Decision.Limit says how many events that is.
//
// With a MaxWait it also paces: what exceeds the burst is told to wait for
// its turn, first come first served, if the wait is not longer than that.
//
// Source: ITU-T I.371, annex A (virtual scheduling).
type GCRA struct {
	Rate    Rate          // the zero Rate admits nothing
	Burst   int           // events at once after a rest; 0 means Rate.Count, negative means none: one at a time
	MaxWait time.Duration // longest wait a yes may ask for; 0 or negative means none: what cannot go at once is refused
}

func (g GCRA) burst() int {
	switch {
	case g.Burst < 0:
		return 1
	case g.Burst == 0:
		return g.Rate.Count
	}
	return g.Burst
}

// Take implements [Law].
func (g GCRA) Take(full int64, now time.Duration, n int) (next int64, d Decision) {
	next = g.take(full, now, n, &d)
	return next, d
}

func (g *GCRA) take(full int64, now time.Duration, n int, d *Decision) (next int64) {
	interval := g.Rate.interval()
	if interval == 0 {
		*d = nothing(n)
		return full
	}
	burst := g.burst()
	room := times(burst, interval)
	if room == longest {
		burst = int(longest / interval)
		room = times(burst, interval)
	}
	d.Limit = burst

	n, now = max(0, n), max(0, now)
	cost := times(n, interval)
	used := max(0, time.Duration(full)-now) // of room
	patience := room + min(max(0, g.MaxWait), longest)
	switch {
	case n > burst:
		d.Over, d.Wait = true, Never
	case used > patience-cost:
		d.Over, d.Wait = true, used-(patience-cost)
	default:
		d.OK = true
		used += cost
		if n > 0 {
			d.Wait = max(0, used-room)
			full = int64(later(now, used))
		}
	}
	d.Reset = used
	d.Remaining = int(max(0, room-used) / interval)
	return full
}

// Refund implements [Law]. What time alone has brought back since d is not
// given back once more: a bucket that was full in between had no use for it.
func (g GCRA) Refund(full int64, now time.Duration, d Decision) int64 {
	cost := times(max(0, d.Cost), g.Rate.interval())
	left := later(d.At, max(0, d.Reset)) - max(0, now) // until d alone would be forgotten
	return max(0, full-int64(min(cost, max(0, left))))
}
