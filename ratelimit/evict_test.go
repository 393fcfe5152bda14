// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A law of the host, like any other: a fixed window, whose Reset says nothing
// of how much is used up.
type hourly struct{ max int }

func (h hourly) Take(state int64, now time.Duration, n int) (int64, Decision) {
	hour, used := state>>32, int(state&(1<<32-1))
	if now := int64(now/time.Hour) + 1; hour != now {
		hour, used = now, 0
	}
	d := Decision{OK: used+n <= h.max, Limit: h.max}
	if d.OK {
		used += n
	} else {
		d.Over, d.Wait = true, time.Hour-now%time.Hour
	}
	if d.Remaining = h.max - used; used > 0 {
		d.Reset = time.Hour - now%time.Hour
	}
	return hour<<32 | int64(used), d
}

func (h hourly) Refund(state int64, _ time.Duration, d Decision) int64 {
	return state - int64(min(d.Cost, int(state&(1<<32-1))))
}

var evictLaws = []Law{
	GCRA{Rate: PerSecond(10)}, &GCRA{Rate: PerSecond(10)}, GCRA{Rate: PerSecond(10), MaxWait: time.Second},
	Window{Rate: PerSecond(10)}, &Window{Rate: PerSecond(10)}, Window{Rate: PerSecond(10), CountRefused: true},
	InFlight{Max: 10}, hourly{10},
}

// A flood of keys that each take a little makes no place by forgetting one that
// has used up its limit, be it in the window before.
func TestFloodDoesNotForgive(t *testing.T) {
	for _, law := range evictLaws {
		for _, ago := range []time.Duration{0, 300 * ms} {
			t.Run(fmt.Sprintf("%T/%v", law, ago), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &Keyed[int]{Law: law, Max: 1024}
					l.Take(-1, 0) // the clock begins
					time.Sleep(800 * ms)
					for l.Take(-1, 1).OK && l.Take(-1, 0).Remaining > 0 {
					}
					time.Sleep(ago)
					before := l.Take(-1, 0).Remaining
					for k := range 25_000 {
						l.Take(k, 1)
						if k%62 == 0 {
							time.Sleep(ms / 8)
						}
					}
					require.Less(t, l.Take(-1, 0).Remaining, before+2, "of %d", before)
				})
			})
		}
	}
}

// Nor by forgetting the strikes of one that is about to be banned: those of the flood are
// newer, but fewer.
func TestFloodDoesNotForgiveStrikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Keyed[int]{Law: GCRA{Rate: PerSecond(10), Burst: -1}, Max: 1024, Ban: Ban{After: 5}}
		l.Take(-1, 1)
		for range 4 {
			require.False(t, l.Take(-1, 1).Banned)
		}
		for k := range 5000 {
			time.Sleep(2 * ms)
			l.Take(k, 1)
			l.Take(k, 1)
		}
		l.Take(-1, 2)
		require.True(t, l.Take(-1, 1).Banned, "it was the fifth refusal in a minute")
	})
}

// However keys come, those that are better off than they would be by
// themselves are not more than Lost says.
func TestFloodForgivesNoMoreThanLost(t *testing.T) {
	for _, law := range evictLaws {
		t.Run(fmt.Sprintf("%T", law), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(11, 12))
				l := &Keyed[int]{Law: law, Max: 64}
				alone := make([]*Limiter, 200)
				l.Take(0, 0)
				for k := range alone {
					alone[k] = &Limiter{Law: law}
					alone[k].Take(0)
				}
				for range 5000 {
					k := rnd.IntN(len(alone))
					n := 1 + rnd.IntN(5)
					got := l.Take(k, n)
					if want := alone[k].Take(n); want.OK != got.OK {
						continue // it was forgotten before; judged below
					}
					if rnd.IntN(20) == 0 {
						time.Sleep(50 * ms)
					}
				}
				forgiven := uint64(0)
				for k, one := range alone {
					if l.Take(k, 0).Remaining > one.Take(0).Remaining {
						forgiven++
					}
				}
				s := l.Stats()
				require.LessOrEqual(t, forgiven, s.Lost+s.Untracked)
				require.Positive(t, s.Lost+s.Untracked)
			})
		})
	}
}

// With places enough all bans of a flood stay, else Stats tells how many were
// lost, and with Keep the new keys give way.
func TestHowManyBansAreKept(t *testing.T) {
	flood := func(l *Keyed[int]) Stats {
		l.Law, l.Ban.After, l.Ban.For = GCRA{Rate: PerHour(1)}, 1, time.Hour
		for k := range 40_001 {
			l.Take(k, 1)
			l.Take(k, 1)
		}
		return l.Stats()
	}
	four := &Keyed[int]{Max: 4 * 40_000}
	s := flood(four)
	require.LessOrEqual(t, s.LostBans, uint64(1))
	require.Equal(t, uint64(40_001), s.Bans)

	small := &Keyed[int]{Max: 8192}
	s = flood(small)
	require.Equal(t, uint64(40_001), s.Bans)
	kept := 0
	for _, d := range small.All() {
		if d.Banned {
			kept++
		}
	}
	require.LessOrEqual(t, kept, 8192)
	require.Equal(t, uint64(40_001-kept), s.LostBans, "each lost ban is told")

	keep := &Keyed[int]{Max: 8192, Ban: Ban{Keep: true}}
	s = flood(keep)
	require.Zero(t, s.LostBans)
	require.True(t, keep.Take(0, 1).Banned)
	require.Positive(t, s.Untracked)
}

// A strike that meets an entry as it leaves the table goes to the entry that
// comes after it.
func TestStrikeOnAForgottenEntry(t *testing.T) {
	l := &Keyed[string]{Law: GCRA{Rate: PerHour(1)}, Ban: Ban{After: 1, For: time.Hour}}
	allowed(t, l, "a", 1)
	e := l.table().find("a")
	law := takeHook{l.Law, func() { l.Forget("a") }}
	var d Decision
	require.False(t, l.takeFrom(e, law, 0, 2, &d), "it left meanwhile: to be decided again")
	require.Nil(t, l.table().find("a"))
}

// takeHook calls a func in the middle of a Take.
type takeHook struct {
	Law
	then func()
}

func (h takeHook) Take(state int64, now time.Duration, n int) (int64, Decision) {
	h.then()
	return h.Law.Take(state, now, n)
}

// An entry that was forgotten is marked, so that a Take that had found it
// before looks the key up again.
func TestForgetMarksTheEntry(t *testing.T) {
	l := &Keyed[string]{Law: GCRA{Rate: PerHour(5)}}
	allowed(t, l, "a", 1)
	e := l.table().find("a")
	l.Forget("a")
	var d Decision
	require.False(t, l.takeFrom(e, l.Law, 0, 1, &d))
	allowed(t, l, "a", 5)
}

// What was taken before a key was forgotten is not given back to what the key
// has taken since, whether Forget or another key's need of the place was why.
func TestRefundAfterForget(t *testing.T) {
	for _, law := range []Law{InFlight{Max: 1}, GCRA{Rate: PerHour(1)}, Window{Rate: PerHour(1)}} {
		for _, why := range []string{"Forget", "flood"} {
			if _, never := law.(InFlight); never && why == "flood" {
				continue // it is not forgotten by itself
			}
			t.Run(fmt.Sprintf("%T/%s", law, why), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &Keyed[int]{Law: law, Max: 16}
					first := allowed(t, l, -1, 1)
					for k := 0; why == "flood" && l.table().find(-1) != nil; k++ {
						l.Take(k, 1)
					}
					l.Forget(-1)
					second := allowed(t, l, -1, 1)
					l.Refund(-1, first)
					denied(t, l, -1, 1)
					l.Refund(-1, second)
					allowed(t, l, -1, 1)
				})
			})
		}
	}
}

// The host's code may use the limit it is asked by: no lock is held then.
func TestLawOfMayAskTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Keyed[int]
		inside := false
		l = &Keyed[int]{Max: 16, LawOf: func(k int) Law {
			if !inside {
				inside = true
				l.Take(k+1000, 1)
				l.Forget(k + 1000)
				inside = false
			}
			return GCRA{Rate: PerSecond(1)}
		}}
		for k := range 100 {
			l.Take(k, 1)
		}
	})
}
