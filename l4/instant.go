// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"math"
	"time"
)

// An instant is a time of the monotonic clock, in nanoseconds since epoch; 0 means none. It
// takes a third of the room of a time.Time.
type instant int64

var epoch = time.Now()

func instantNow() instant { return instant(time.Since(epoch)) }

func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	now, d := time.Since(epoch), time.Until(t)
	if d > math.MaxInt64-now {
		return math.MaxInt64
	}
	if at := instant(now + d); at != 0 {
		return at
	}
	return 1
}

// passed reports whether i is a deadline that is over.
func (i instant) passed() bool { return i != 0 && instantNow() >= i }

func (i instant) time() time.Time { return epoch.Add(time.Duration(i)) }
