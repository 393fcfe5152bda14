// SPDX-License-Identifier: Apache-2.0

package l7

import "time"

// longest is what a longer time counts as: there is room to add to it.
const longest = 1 << 61 * time.Nanosecond // 73 years

// coarse is a deadline that is only moved when it has come too near: setting
// one costs more than reading a small request does.
type coarse struct{ at time.Time }

// due returns the new deadline for something that may take d from now, if the
// present one has to be replaced. Zero d means no deadline. Now has to be read
// after the last wait: judged by an earlier one, a deadline that has nearly
// passed looks far away.
func (c *coarse) due(now time.Time, d time.Duration) (time.Time, bool) {
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

// bound sets the deadline of what may take d from now, if the present one has to
// be replaced. Others may end a wait by a deadline in the past, which must not be
// undone: they say so first, and set it then. So what they say, over, is asked for
// once it is set.
func (c *coarse) bound(now time.Time, d time.Duration, set func(time.Time) error, over func() bool) {
	if at, ok := c.due(now, d); ok {
		_ = set(at)
		if over() {
			_ = set(past)
		}
	}
}

// forget says that the deadline which stands is not what c says: somebody has set
// another.
func (c *coarse) forget() { c.at = past }

// deadline returns when d, 0 meaning no end, is over.
func deadline(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(min(d, longest))
}
