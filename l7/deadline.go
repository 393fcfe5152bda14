// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"time"
)

// longest is what a longer time counts as: there is room to add to it.
const longest = 1 << 61 * time.Nanosecond // 73 years

// A deadline is one that bounds the next read, or write, of a connection. It is
// only moved when it has come too near: setting one costs more than reading a small
// request does. It belongs to the goroutine that reads, or writes.
type deadline struct{ at time.Time }

// bound sets the deadline of what may take d from now, if the present one has to be
// replaced. Another may take its place, as instead says: one of the host's, or one
// in the past that ends a wait. That must not be undone. Whoever sets it says so
// first, so instead is asked again once ours is set. It is nil where nobody else
// sets one. The result says whether ours stands.
func (c *deadline) bound(now time.Time, d time.Duration, set func(time.Time) error, instead func() (time.Time, bool)) bool {
	if instead != nil {
		if _, ok := instead(); ok {
			return false
		}
	}
	at, ok := c.due(now, d)
	return !ok || c.put(at, set, instead)
}

// boundAt is bound for a deadline that is to be neither earlier nor later than at.
func (c *deadline) boundAt(at time.Time, set func(time.Time) error, instead func() (time.Time, bool)) bool {
	c.at = at
	return c.put(at, set, instead)
}

func (c *deadline) put(at time.Time, set func(time.Time) error, instead func() (time.Time, bool)) bool {
	_ = set(at)
	if instead != nil {
		if t, ok := instead(); ok {
			_ = set(t)
			return false
		}
	}
	return true
}

// due returns the new deadline for something that may take d from now, if the
// present one has to be replaced. Zero d means no deadline. Now has to be read
// after the last wait: judged by an earlier one, a deadline that has nearly
// passed looks far away.
func (c *deadline) due(now time.Time, d time.Duration) (time.Time, bool) {
	if d <= 0 {
		if c.at.IsZero() {
			return c.at, false
		}
		c.at = time.Time{}
		return c.at, true
	}
	d = min(d, longest)
	if left := c.at.Sub(now); left >= d && left <= d+d/2 {
		return c.at, false
	}
	c.at = now.Add(d + d/4)
	return c.at, true
}

// forget says that the deadline which stands is not what c says: somebody has set
// another.
func (c *deadline) forget() { c.at = past }

// hostDeadline is a deadline that the host has set in the place of ours. Any
// goroutine may do so.
type hostDeadline struct{ at atomic.Pointer[time.Time] }

func (h *hostDeadline) set(t time.Time) { h.at.Store(&t) }

// clear has ours hold again, and reports whether there was one.
func (h *hostDeadline) clear() bool { return h.at.Swap(nil) != nil }

func (h *hostDeadline) stands() bool { return h.at.Load() != nil }

// get is an instead of bound.
func (h *hostDeadline) get() (time.Time, bool) {
	if t := h.at.Load(); t != nil {
		return *t, true
	}
	return time.Time{}, false
}

// deadlineIn returns when d, 0 meaning no end, is over.
func deadlineIn(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(min(d, longest))
}
