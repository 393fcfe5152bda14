// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"time"
)

// longest is the greatest duration; a longer one counts as this, so that sums do not
// overflow.
const longest = 1 << 61 * time.Nanosecond // 73 years

// A deadline bounds the next read, or write, of a connection. It is moved only when
// it has come too near, since setting one costs more than reading a small request
// does. It belongs to the goroutine that reads, or writes.
type deadline struct{ at time.Time }

// bound sets the deadline for an operation that may take d from now, if the present
// one has to be replaced. Instead reports another deadline that takes precedence:
// one of the host's, or one in the past that ends a wait. It must not be
// overwritten. Since it is announced before it is set, instead is called again once
// ours is set. Instead is nil where no other code sets a deadline. The result says
// whether ours is in force.
func (c *deadline) bound(now time.Time, d time.Duration, set func(time.Time) error, instead func() (time.Time, bool)) bool {
	if instead != nil {
		if _, ok := instead(); ok {
			return false
		}
	}
	at, ok := c.due(now, d)
	return !ok || c.put(at, set, instead)
}

// boundAt is bound for a deadline of exactly at.
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

// due returns the new deadline for an operation that may take d from now, if
// the present one has to be replaced. Zero d means no deadline. Now has to be
// read after the last wait: by an earlier reading, a deadline that has nearly
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

// forget notes that the deadline in force is not the one that c holds, since
// other code has set one.
func (c *deadline) forget() { c.at = past }

// hostDeadline is a deadline that the host has set in place of ours. Any
// goroutine may set it.
type hostDeadline struct{ at atomic.Pointer[time.Time] }

func (h *hostDeadline) set(t time.Time) { h.at.Store(&t) }

// clear puts ours in force again, and reports whether the host had set one.
func (h *hostDeadline) clear() bool { return h.at.Swap(nil) != nil }

func (h *hostDeadline) stands() bool { return h.at.Load() != nil }

// get is the instead argument of bound.
func (h *hostDeadline) get() (time.Time, bool) {
	if t := h.at.Load(); t != nil {
		return *t, true
	}
	return time.Time{}, false
}

// deadlineIn returns the time d from now, or zero if d is 0.
func deadlineIn(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(min(d, longest))
}
