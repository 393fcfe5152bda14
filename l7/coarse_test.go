// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A coarse deadline is never nearer than what was asked for, and is left alone
// while it is near enough.
func TestCoarse(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	start := time.Now()
	for _, d := range []time.Duration{1, time.Second, time.Hour, most / 2, most - 1, most} {
		var c coarse
		moved := 0
		for i := range 100 {
			now := start.Add(time.Duration(i) * min(d, time.Hour) / 10)
			at, ok := c.due(now, d)
			if ok {
				moved++
			}
			left := at.Sub(now)
			require.GreaterOrEqual(t, left, min(d, longest), "%v, step %d", d, i)
			require.LessOrEqual(t, left-min(d, longest), min(d, longest)/2, "%v, step %d", d, i)
		}
		require.Less(t, moved, 60, "%v", d)
		at, ok := c.due(start, 0)
		require.True(t, ok && at.IsZero())
		_, ok = c.due(start, 0)
		require.False(t, ok)
	}
}

func TestRetryWaitOfLongestDurations(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	for _, r := range []Retry{{Backoff: most}, {MaxBackoff: most}, {Backoff: most, MaxBackoff: most}, {Backoff: most / 2, MaxBackoff: most}} {
		for n := range 80 {
			require.Positive(t, r.wait(n+2, 0.9999), "%+v, try %d", r, n+2)
		}
	}
}
