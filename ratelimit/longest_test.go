// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The longest duration there is means a long time, wherever something is added
// to it.
func TestLongestDurations(t *testing.T) {
	rate := Rate{2, Never}
	for _, law := range []Law{Window{Rate: rate}, GCRA{Rate: rate, MaxWait: Never}} {
		state := int64(0)
		for i, now := range []time.Duration{time.Hour, time.Hour + 1, 2 * time.Hour, 3 * time.Hour} {
			var d Decision
			state, d = law.Take(state, now, 1)
			require.GreaterOrEqual(t, state, int64(0))
			require.Positive(t, d.Reset, "%T %d", law, i)
			if i < 2 {
				require.True(t, d.OK, "%T %d", law, i)
			}
			if !d.OK {
				require.Positive(t, d.Wait, "%T %d", law, i)
			}
		}
	}
	ban := Ban{After: 2, Within: Never, For: Never}
	s := ban.strike(0, time.Hour)
	_, forget := ban.status(s, 2*time.Hour)
	require.Positive(t, forget, "a strike is kept")
	s = ban.strike(s, 2*time.Hour)
	require.Positive(t, s, "no state is negative")
	wait, _ := ban.status(s, 3*time.Hour)
	require.Greater(t, wait, 1000*time.Hour)

	require.Positive(t, creditOf(math.MaxInt, 1, 1), "a lease of a limit without end")
	require.Positive(t, (&lease{rate: Rate{math.MaxInt, time.Second}}).regained(1, time.Hour))

	b := &Bucket{Rate: rate, Burst: 2}
	require.True(t, b.Take(2).OK)
	d := b.Take(1)
	require.True(t, !d.OK && d.Wait > 0 && d.Reset > 0, "%+v", d)

	w := &Bandwidth{BytesPerSecond: 1}
	for range 10 {
		require.GreaterOrEqual(t, w.Reserve(math.MaxInt), time.Duration(0))
	}
}
