// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math/bits"
	"time"
)

// Window is the sliding window counter. Time is cut into windows of
// Rate.Per; the estimate at any time is what the current window counted plus
// what the one before counted, times the part of it that the sliding window
// still covers. An event is admitted if the estimate with it is at most
// Rate.Count.
//
// The estimate takes the events of the last window as evenly spread. In the
// long run at most Count are admitted per Per, in the worst placed span of
// Per less than twice as many. Prefer GCRA unless counting is what is asked
// for: Window also counts what it refuses, if told to.
//
// Rate.Count may be at most 4 194 303; more counts as that.
//
// Source: the two-bucket frequency counters of HAProxy and Cloudflare.
type Window struct {
	Rate         Rate // the zero Rate admits nothing
	CountRefused bool // refused takes count too: a client is admitted again only after slowing down
}

// The state of a Window, from the top: a zero bit, the number of the current
// window modulo 2^19, the counts of the last and of the current window.
// A number that comes round again (after six days of one-second windows)
// only makes old counts look young for some windows: it refuses, it never
// admits, too much.
//
// A clock may step back by a minute, but at least by one window and at most by
// 512: until it has caught up, the counts of the latest window stand as if that
// had just begun. Beyond that they are taken for old ones and forgotten.
const (
	windowCountBits = 22
	windowCountMax  = 1<<windowCountBits - 1
	windowNumbers   = 1 << 19
	windowStepBack  = time.Minute
)

type windowState struct {
	number    int64
	last, cur int64
	elapsed   time.Duration // of the current window
}

func (w *Window) at(state int64, now time.Duration) windowState {
	per, now := w.Rate.span(), max(0, now)
	s := windowState{
		number:  int64(now/per) % windowNumbers,
		elapsed: now % per,
	}
	number := state >> (2 * windowCountBits)
	last, cur := state>>windowCountBits&windowCountMax, state&windowCountMax
	switch ahead := (s.number - number + windowNumbers) % windowNumbers; {
	case ahead == 0:
		s.last, s.cur = last, cur
	case ahead == 1:
		s.last = cur
	case windowNumbers-ahead <= w.back() && last+cur > 0: // a state of nothing has no window
		s.last, s.cur, s.number, s.elapsed = last, cur, number, 0
	}
	return s
}

// back returns how many windows the clock may step back.
func (w *Window) back() int64 {
	return min(max(1, int64(windowStepBack/w.Rate.span())), windowNumbers/1024)
}

func (s windowState) pack() int64 {
	return s.number<<(2*windowCountBits) | s.last<<windowCountBits | s.cur
}

// Take implements [Law].
func (w Window) Take(state int64, now time.Duration, n int) (next int64, d Decision) {
	next = w.take(state, now, n, &d)
	return next, d
}

func (w *Window) take(state int64, now time.Duration, n int, d *Decision) (next int64) {
	if w.Rate.Count <= 0 {
		*d = nothing(n)
		return state
	}
	n = max(0, n)
	per, count := w.Rate.span(), int64(min(w.Rate.Count, windowCountMax))
	s := w.at(state, now)
	seen := s.cur + portion(s.last, per-s.elapsed, per)
	d.Limit = int(count)
	if n == 0 || int64(n) <= count-seen {
		d.OK = true
		s.cur += int64(n)
		seen += int64(n)
	} else {
		d.Over = true
		if w.CountRefused {
			s.cur = min(s.cur+int64(min(n, windowCountMax)), windowCountMax)
			seen = count
		}
		d.Wait = w.wait(s, n)
	}
	d.Remaining = int(max(0, count-seen))
	switch {
	case s.cur > 0:
		d.Reset = 2*per - s.elapsed
	case s.last > 0:
		d.Reset = per - s.elapsed
	}
	if n == 0 {
		return state
	}
	return s.pack()
}

// wait returns after how long n pass, if nothing is counted until then.
func (w *Window) wait(s windowState, n int) time.Duration {
	per, count := w.Rate.span(), int64(min(w.Rate.Count, windowCountMax))
	if int64(n) > count {
		return Never
	}
	if room := count - s.cur - int64(n); room >= 0 { // in this window, when enough of the last has slid out
		return per - s.elapsed - shrunk(s.last, room, per)
	}
	return per - s.elapsed + per - shrunk(s.cur, count-int64(n), per)
}

// credit returns how long the rate takes for what state counts now: what a key
// gains when it is forgotten.
func (w *Window) credit(state int64, now time.Duration) time.Duration {
	if w.Rate.Count <= 0 {
		return 0
	}
	per, s := w.Rate.span(), w.at(state, now)
	seen, count := uint64(s.cur+portion(s.last, per-s.elapsed, per)), uint64(min(w.Rate.Count, windowCountMax))
	hi, lo := bits.Mul64(seen, uint64(per))
	if hi >= count {
		return longest
	}
	q, r := bits.Div64(hi, lo, count)
	if r > 0 {
		q++
	}
	return time.Duration(min(q, uint64(longest)))
}

// portion returns count times part/whole, rounded up. Part is at most whole.
func portion(count int64, part, whole time.Duration) int64 {
	if count == 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(count), uint64(part))
	q, r := bits.Div64(hi, lo, uint64(whole))
	if r > 0 {
		q++
	}
	return int64(q)
}

// shrunk returns the longest part of whole whose portion of count is at most
// room.
func shrunk(count, room int64, whole time.Duration) time.Duration {
	if count <= room {
		return whole
	}
	hi, lo := bits.Mul64(uint64(room), uint64(whole))
	q, _ := bits.Div64(hi, lo, uint64(count))
	return time.Duration(q)
}

// Refund implements [Law]. It gives back to the window that counted d, and
// nothing if that one has passed.
func (w Window) Refund(state int64, now time.Duration, d Decision) int64 {
	s := w.at(state, now)
	cost := int64(max(0, d.Cost))
	switch (s.number - int64(max(0, d.At)/w.Rate.span())%windowNumbers + windowNumbers) % windowNumbers {
	case 0:
		s.cur = max(0, s.cur-cost)
	case 1:
		s.last = max(0, s.last-cost)
	}
	return s.pack()
}
