// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"fmt"
	"math"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	extremeCounts = []int{math.MinInt, -1, 0, 1, 2, 640, 1_000_000, math.MaxInt32, math.MaxInt - 1, math.MaxInt}
	extremeSpans  = []time.Duration{math.MinInt64, -1, 0, 1, 999, time.Second, 1000 * time.Hour, Never / 4, Never - 1, Never}
	extremeTimes  = []time.Duration{0, 1, time.Hour, Never / 2, Never - 1, Never}
	extremeLaws   = func() (laws []Law) {
		for _, count := range extremeCounts {
			laws = append(laws, InFlight{count})
			for _, per := range extremeSpans {
				rate := Rate{count, per}
				laws = append(laws, Window{Rate: rate}, Window{Rate: rate, CountRefused: true})
				for _, burst := range extremeCounts {
					laws = append(laws, GCRA{Rate: rate, Burst: burst}, GCRA{Rate: rate, Burst: burst, MaxWait: per})
				}
			}
		}
		return append(laws, Unlimited{})
	}
)

// sound fails unless d can be true of anything, in a field too.
func sound(t *testing.T, d Decision, format string, args ...any) {
	t.Helper()
	field := string(d.AppendRateLimit(nil, "p"))
	if d.Wait < 0 || d.Reset < 0 || d.Remaining < 0 || d.Limit < d.Remaining || d.Cost < 0 || d.OK == (d.Over && d.Cost == 0) ||
		!fieldRE.MatchString(field) || !policyRE.Match(d.AppendPolicy(nil, "p", Never)) || d.RetryAfter() < 0 {
		t.Fatalf("%s: %+v, %s", fmt.Sprintf(format, args...), d, field)
	}
}

var (
	fieldRE  = regexp.MustCompile(`^"p";r=\d{1,15}(;t=\d{1,15})?$`)
	policyRE = regexp.MustCompile(`^"p";q=\d{1,15};w=\d{1,15}$`)
)

// With the largest and smallest of all numbers, each law still says what it
// does: Limit passes at once after a rest and one more does not, Remaining
// passes now, and what was told to wait passes then.
func TestExtremesAreToldAsTheyAre(t *testing.T) {
	for _, law := range extremeLaws() {
		for _, now := range extremeTimes {
			_, rested := law.Take(0, now, 0)
			sound(t, rested, "%+v at %d", law, now)
			require.True(t, rested.OK)
			require.Equal(t, rested.Limit, rested.Remaining, "%+v", law)
			state, d := law.Take(0, now, rested.Limit)
			sound(t, d, "%+v takes all at %d", law, now)
			require.True(t, d.OK, "%+v says that %d pass", law, rested.Limit)
			if rested.Limit == math.MaxInt && d.Remaining > 0 {
				continue // Unlimited
			}
			if rested.Limit < math.MaxInt {
				_, d = law.Take(0, now, rested.Limit+1)
				sound(t, d, "%+v", law)
				require.False(t, d.OK, "%+v takes more than its limit", law)
				require.Equal(t, Never, d.Wait)
			}
			next, d := law.Take(state, now, 1)
			sound(t, d, "%+v takes one more at %d", law, now)
			if now > Never/2 {
				continue // the clock has no more room for what lies ahead
			}
			if d.OK {
				require.Positive(t, d.Wait, "%+v takes more than its limit", law)
			} else if _, in := law.(InFlight); !in && d.Wait < Never/2 {
				if w, ok := law.(Window); !ok || !w.CountRefused {
					_, d = law.Take(next, now+d.Wait, 1)
					require.True(t, d.OK, "%+v: it passes after Wait", law)
				}
			}
			require.GreaterOrEqual(t, next, int64(0))
		}
	}
}

// A clock that goes back, or below zero, admits nothing more and breaks no
// number. (The clocks of Limiter and Keyed never do.)
func TestExtremesOfClocks(t *testing.T) {
	for _, law := range extremeLaws() {
		state, _ := law.Take(0, time.Hour, 0)
		_, rested := law.Take(0, time.Hour, 0)
		state, d := law.Take(state, time.Hour, rested.Limit)
		for _, now := range []time.Duration{time.Hour, time.Hour - 1, time.Hour - 250, 0, -1, math.MinInt64} {
			for _, n := range []int{0, 1, -1, math.MinInt, math.MaxInt} {
				next, d := law.Take(state, now, n)
				sound(t, d, "%+v at %d takes %d", law, now, n)
				require.GreaterOrEqual(t, next, int64(0), "%+v at %d takes %d", law, now, n)
				if n > 0 && rested.Limit < math.MaxInt && now > time.Hour-2 {
					require.False(t, d.OK && d.Wait == 0, "%+v at %d takes %d", law, now, n)
				}
			}
			for _, cost := range []int{0, 1, -1, math.MinInt, math.MaxInt} {
				d.Cost, d.At = cost, now
				require.GreaterOrEqual(t, law.Refund(state, now, d), int64(0), "%+v gives back %d at %d", law, cost, now)
				if cost < 0 {
					_, before := law.Take(state, now, 0)
					_, after := law.Take(law.Refund(state, now, d), now, 0)
					require.Equal(t, before.Remaining, after.Remaining, "%+v gives back %d", law, cost)
				}
			}
		}
	}
}

// A step back of the clock by a few windows does not open a window, and the
// law goes on as soon as the clock has caught up.
func TestWindowAfterAStepBack(t *testing.T) {
	w := Window{Rate: Rate{Count: 5, Per: 10 * ms}}
	state, d := w.Take(0, time.Second, 5)
	require.True(t, d.OK)
	for _, back := range []time.Duration{ms, 10 * ms, 25 * ms, 300 * ms} {
		state, d = w.Take(state, time.Second-back, 1)
		require.False(t, d.OK, "%v back", back)
	}
	state, d = w.Take(state, time.Second, 1)
	require.False(t, d.OK)
	_, d = w.Take(state, time.Second+20*ms, 5)
	require.True(t, d.OK)
}

func TestExtremesOfBucket(t *testing.T) {
	for _, count := range extremeCounts {
		for _, per := range extremeSpans {
			for _, burst := range extremeCounts {
				b := &Bucket{Rate: Rate{count, per}, Burst: burst}
				now := time.Now()
				rested := b.take(now, 0)
				sound(t, rested, "%d in %d, %d", count, per, burst)
				require.Equal(t, rested.Limit, rested.Remaining)
				if rested.Limit < math.MaxInt {
					sound(t, b.take(now, rested.Limit+1), "%d in %d, %d", count, per, burst)
				}
				d := b.take(now, rested.Limit)
				sound(t, d, "%d in %d, %d", count, per, burst)
				require.True(t, d.OK)
				require.Zero(t, d.Remaining)
				d = b.take(now, 1)
				sound(t, d, "%d in %d, %d", count, per, burst)
				require.False(t, d.OK, "%d in %d, %d", count, per, burst)
			}
		}
	}
}

func TestExtremesOfBan(t *testing.T) {
	for _, span := range extremeSpans {
		for _, now := range append([]time.Duration{math.MinInt64, -1}, extremeTimes...) {
			b := Ban{After: 1, Within: span, For: span}
			s := b.strike(0, now)
			require.Positive(t, s)
			wait, forget := b.status(s, now)
			require.GreaterOrEqual(t, wait, min(b.span(), Never-max(0, now)-ms), "banned for %d at %d", span, now)
			require.Equal(t, wait, forget)
			b.After = math.MaxInt
			_, forget = b.status(b.strike(0, now), now)
			require.GreaterOrEqual(t, forget, min(b.within(), Never-max(0, now))-ms)
		}
	}
}

func TestExtremesOfBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []int64{1, 2, math.MaxInt32, math.MaxInt64 - 1, math.MaxInt64} {
			for _, burst := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
				b := Bandwidth{BytesPerSecond: rate, BurstBytes: burst}
				var last time.Duration
				for range 10 {
					wait := b.Reserve(math.MaxInt)
					require.GreaterOrEqual(t, wait, last, "%d, %d: later turns are not earlier", rate, burst)
					last = wait
				}
				b.Unreserve(math.MaxInt)
				require.GreaterOrEqual(t, b.Reserve(1), time.Duration(0))
			}
		}
	})
}

func TestExtremesOfAdaptive(t *testing.T) {
	for _, n := range extremeCounts {
		a := &Adaptive{Min: n, Max: n, Initial: n, Window: Never}
		require.Positive(t, a.Limit(), "%d", n)
		require.True(t, a.TryAcquire(), "%d", n)
		a.Release(Never)
		require.Positive(t, a.Limit(), "%d", n)
	}
	for _, took := range []time.Duration{0, 1, 7, 8, time.Second, Never} {
		var h histogram
		h.add(took)
		require.InEpsilon(t, float64(max(8, took)), float64(h.quantile(1)), 0.2, "%d", took)
	}
}

// A table of all the keys there could be is not asked for from the machine.
func TestExtremeTables(t *testing.T) {
	for _, size := range []int{math.MinInt, -1, 0, 1, 16, 17} {
		l := &Keyed[int]{Law: GCRA{Rate: PerHour(1)}, Max: size}
		allowed(t, l, 1, 1)
	}
}

// A key never seen has no window, so its limit is whole also when the number
// of the window is about to come round.
func TestWindowOfANewKeyAsNumbersComeRound(t *testing.T) {
	w := Window{Rate: PerSecond(2)}
	now := (windowNumbers - 5) * time.Second
	var state int64
	for range 4 {
		var d Decision
		state, d = w.Take(state, now, 1)
		require.True(t, d.OK, "at %v", now)
		now += time.Second
	}
}
