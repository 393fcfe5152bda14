// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

// stamp completes a decision as Limiter and Keyed do.
func (d Decision) stamp(now time.Duration, n int) Decision {
	if d.OK {
		d.Cost = n
	}
	d.At = now
	return d
}

// A step is one Take in a story.
type step struct {
	at        time.Duration
	n         int
	ok        bool
	wait      time.Duration
	remaining int
	reset     time.Duration
}

func TestLaws(t *testing.T) {
	tests := []struct {
		name  string
		law   Law
		steps []step
	}{
		{"gcra, a burst and then its rate", GCRA{Rate: PerSecond(10), Burst: 3}, []step{
			{0, 1, true, 0, 2, 100 * ms},
			{0, 2, true, 0, 0, 300 * ms},
			{0, 1, false, 100 * ms, 0, 300 * ms},
			{60 * ms, 1, false, 40 * ms, 0, 240 * ms},
			{100 * ms, 1, true, 0, 0, 300 * ms},
			{350 * ms, 0, true, 0, 2, 50 * ms},
			{350 * ms, 2, true, 0, 0, 250 * ms},
			{time.Hour, 0, true, 0, 3, 0},
			{time.Hour, 4, false, Never, 3, 0},
			{time.Hour, 3, true, 0, 0, 300 * ms},
		}},
		{"gcra, the burst defaults to the count", GCRA{Rate: PerMinute(2)}, []step{
			{0, 2, true, 0, 0, time.Minute},
			{0, 1, false, 30 * time.Second, 0, time.Minute},
		}},
		{"gcra, a negative burst is one at a time", GCRA{Rate: PerSecond(10), Burst: -1}, []step{
			{0, 2, false, Never, 1, 0},
			{0, 1, true, 0, 0, 100 * ms},
			{99 * ms, 1, false, 1 * ms, 0, 1 * ms},
		}},
		{"gcra, an interval that is no whole number still gives the whole burst", GCRA{Rate: PerSecond(3)}, []step{
			{0, 1, true, 0, 2, 333_333_334},
			{0, 1, true, 0, 1, 666_666_668},
			{0, 1, true, 0, 0, 1_000_000_002},
			{0, 1, false, 333_333_334, 0, 1_000_000_002},
		}},
		{"gcra, pacing", GCRA{Rate: PerSecond(10), Burst: 1, MaxWait: 200 * ms}, []step{
			{0, 1, true, 0, 0, 100 * ms},
			{0, 1, true, 100 * ms, 0, 200 * ms},
			{0, 1, true, 200 * ms, 0, 300 * ms},
			{0, 1, false, 100 * ms, 0, 300 * ms},
			{100 * ms, 1, true, 200 * ms, 0, 300 * ms},
			{100 * ms, 4, false, Never, 0, 300 * ms},
		}},
		{"gcra of nothing", GCRA{}, []step{
			{0, 1, false, Never, 0, 0},
			{0, 0, true, 0, 0, 0},
		}},
		{"gcra, a burst beyond all numbers", GCRA{Rate: PerHour(1), Burst: math.MaxInt / 2}, []step{
			{0, math.MaxInt / 2, false, Never, 640_511, 0}, // 73 years of them
			{0, 640_511, true, 0, 0, 640_511 * time.Hour},
			{0, 1, false, time.Hour, 0, 640_511 * time.Hour},
		}},
		{"window, slides", Window{Rate: PerSecond(10)}, []step{
			{0, 10, true, 0, 0, 2000 * ms},
			{0, 1, false, 1100 * ms, 0, 2000 * ms},
			{1000 * ms, 1, false, 100 * ms, 0, 1000 * ms},
			{1100 * ms, 1, true, 0, 0, 1900 * ms},
			{1500 * ms, 4, true, 0, 0, 1500 * ms},
			{1500 * ms, 1, false, 100 * ms, 0, 1500 * ms},
			{2000 * ms, 0, true, 0, 5, 1000 * ms},
			{3000 * ms, 0, true, 0, 10, 0},
			{3000 * ms, 11, false, Never, 10, 0},
		}},
		{"window, who does not slow down stays out", Window{Rate: PerSecond(2), CountRefused: true}, []step{
			{0, 2, true, 0, 0, 2000 * ms},
			{500 * ms, 2, false, 1500 * ms, 0, 1500 * ms}, // and counts
			{1000 * ms, 1, false, 1000 * ms, 0, 2000 * ms},
			{3000 * ms, 1, true, 0, 1, 2000 * ms},
		}},
		{"in flight", InFlight{Max: 2}, []step{
			{0, 1, true, 0, 1, Never},
			{0, 2, false, 0, 1, Never},
			{0, 1, true, 0, 0, Never},
			{time.Hour, 1, false, 0, 0, Never},
			{time.Hour, 3, false, Never, 0, Never},
		}},
		{"unlimited", Unlimited{}, []step{
			{0, 1 << 30, true, 0, math.MaxInt, 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var state int64
			for i, s := range tt.steps {
				next, d := tt.law.Take(state, s.at, s.n)
				got := step{s.at, s.n, d.OK, d.Wait, d.Remaining, d.Reset}
				require.Equal(t, s, got, "step %d", i)
				require.GreaterOrEqual(t, next, int64(0))
				state = next
			}
		})
	}
}

// TestGCRAHoldsItsLaw takes at random and checks every span between two
// admissions against the law as it is written in the doc of GCRA.
func TestGCRAHoldsItsLaw(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		g := GCRA{
			Rate:    Rate{1 + rnd.IntN(2000), time.Duration(1 + rnd.Int64N(int64(3*time.Second)))},
			Burst:   1 + rnd.IntN(20),
			MaxWait: time.Duration(rnd.IntN(2)) * 50 * ms,
		}
		interval := g.Rate.interval()
		type admitted struct {
			at time.Duration
			n  int
		}
		var state int64
		var log []admitted
		now := time.Duration(rnd.Int64N(int64(time.Hour)))
		for range 300 {
			now += time.Duration(rnd.ExpFloat64() * float64(interval))
			n := 1 + rnd.IntN(3)
			next, d := g.Take(state, now, n)
			if d.OK {
				log = append(log, admitted{now + d.Wait, n})
			} else if d.Wait != Never {
				_, later := g.Take(state, now+d.Wait, n)
				require.True(t, later.OK, "%+v: it passes after Wait", g)
				_, early := g.Take(state, now+d.Wait-1, n)
				require.False(t, early.OK, "%+v: and not before", g)
			}
			state = next
		}
		for i := range log {
			sum := 0
			for _, a := range log[i:] {
				sum += a.n
				may := time.Duration(g.Burst)*interval + (a.at - log[i].at)
				if time.Duration(sum)*interval > may {
					t.Fatalf("%+v admits %d in %v", g, sum, a.at-log[i].at)
				}
			}
		}
	}
}

// exactWindow is the sliding window counter written down plainly, with all
// counts kept and fractions as fractions.
type exactWindow struct {
	per    int64
	counts map[int64]int64
}

func (w *exactWindow) admits(now, n, limit int64) bool {
	k, elapsed := now/w.per, now%w.per
	est := new(big.Rat).Mul(big.NewRat(w.counts[k-1], 1), big.NewRat(w.per-elapsed, w.per))
	est.Add(est, big.NewRat(w.counts[k]+n, 1))
	return est.Cmp(big.NewRat(limit, 1)) <= 0
}

func TestWindowAgreesWithTheModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		w := Window{Rate: Rate{1 + rnd.IntN(50), time.Duration(1 + rnd.Int64N(int64(time.Second)))}, CountRefused: rnd.IntN(4) == 0}
		per := int64(w.Rate.Per)
		model := exactWindow{per, map[int64]int64{}}
		var state int64
		now := time.Duration(rnd.Int64N(int64(time.Hour)))
		for range 500 {
			now += time.Duration(rnd.ExpFloat64() * float64(per) / float64(w.Rate.Count))
			n := 1 + rnd.IntN(3)
			next, d := w.Take(state, now, n)
			require.Equal(t, model.admits(int64(now), int64(n), int64(w.Rate.Count)), d.OK, "%+v at %d", w, now)
			if !d.OK && d.Wait != Never && !w.CountRefused {
				_, later := w.Take(next, now+d.Wait, n)
				require.True(t, later.OK, "%+v: it passes after Wait", w)
				_, early := w.Take(next, now+d.Wait-1, n)
				require.False(t, early.OK, "%+v: and not before", w)
			}
			if d.OK || w.CountRefused {
				model.counts[int64(now)/per] += int64(n)
			}
			state = next
			if rnd.IntN(4) == 0 && d.OK {
				at := now
				now += time.Duration(rnd.Int64N(3 * per))
				state = w.Refund(state, now, d.stamp(at, n))
				model.counts[int64(at)/per] -= int64(n)
			}
		}
	}
}

// A late reader of the clock, a goroutine that was held up between reading it
// and its compare-and-swap, must not open the window.
func TestWindowAfterALateReader(t *testing.T) {
	w := Window{Rate: PerSecond(5)}
	state, d := w.Take(0, 2000*ms, 5)
	require.True(t, d.OK)
	_, d = w.Take(state, 1999*ms, 1)
	require.False(t, d.OK)
}

func TestRefund(t *testing.T) {
	for _, law := range []Law{GCRA{Rate: PerSecond(5)}, Window{Rate: PerSecond(5)}, InFlight{Max: 5}} {
		t.Run(fmt.Sprintf("%T", law), func(t *testing.T) {
			state, _ := law.Take(0, 1500*ms, 2)
			state, d := law.Take(state, 1500*ms, 3)
			require.True(t, d.OK)
			require.Zero(t, d.Remaining)
			state = law.Refund(state, 1500*ms, d.stamp(1500*ms, 3))
			_, d = law.Take(state, 1500*ms, 0)
			require.Equal(t, 3, d.Remaining)
		})
	}
}

func FuzzLaws(f *testing.F) {
	f.Add(int64(0), int64(0), 1, 10, int64(time.Second), 3)
	f.Add(int64(1)<<62, int64(1)<<60, math.MaxInt/2, math.MaxInt/2, int64(1), -1)
	f.Fuzz(func(t *testing.T, state, now int64, n, count int, per int64, burst int) {
		state, now, n = state&(1<<62-1), now&(1<<60-1), n&(math.MaxInt/2)
		rate := Rate{count, time.Duration(per)}
		for _, law := range []Law{GCRA{rate, burst, time.Duration(burst)}, Window{rate, burst > 0}, InFlight{count}} {
			next, d := law.Take(state, time.Duration(now), n)
			if next < 0 || d.Wait < 0 || d.Reset < 0 || d.Remaining < 0 || d.Limit < 0 {
				t.Errorf("%+v.Take(%d, %d, %d) = %d, %+v", law, state, now, n, next, d)
			}
			if got := law.Refund(next, time.Duration(now), d.stamp(time.Duration(now), n)); got < 0 {
				t.Errorf("%+v.Refund = %d", law, got)
			}
		}
	})
}
