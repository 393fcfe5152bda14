// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBreakerTable walks the table of the type's comment.
func TestBreakerTable(t *testing.T) {
	type step struct {
		after time.Duration
		do    string // ask, refused, succeed, fail or cancel, of the oldest permit
		want  BreakerState
	}
	broken := []step{{0, "ask", BreakerClosed}, {0, "ask", BreakerClosed}, {0, "succeed", BreakerClosed}, {0, "fail", BreakerOpen}}
	trial := append(broken[:4:4], step{5 * time.Second, "ask", BreakerHalfOpen})
	recovering := append(trial[:5:5], step{time.Second, "succeed", BreakerRecovering})
	for name, steps := range map[string][]step{
		"closed, too few":     {{0, "ask", BreakerClosed}, {0, "fail", BreakerClosed}},
		"closed, share kept":  {{0, "ask", BreakerClosed}, {0, "ask", BreakerClosed}, {0, "ask", BreakerClosed}, {0, "succeed", BreakerClosed}, {0, "succeed", BreakerClosed}, {0, "fail", BreakerClosed}},
		"closed, window over": {{0, "ask", BreakerClosed}, {0, "ask", BreakerClosed}, {0, "fail", BreakerClosed}, {11 * time.Second, "fail", BreakerClosed}},
		"closed, canceled":    {{0, "ask", BreakerClosed}, {0, "ask", BreakerClosed}, {0, "cancel", BreakerClosed}, {0, "fail", BreakerClosed}},
		"open":                append(broken[:4:4], step{4 * time.Second, "refused", BreakerOpen}),
		"trial":               append(trial[:5:5], step{0, "refused", BreakerHalfOpen}),
		"trial fails":         append(trial[:5:5], step{0, "fail", BreakerOpen}, step{4 * time.Second, "refused", BreakerOpen}, step{time.Second, "ask", BreakerHalfOpen}),
		"trial canceled":      append(trial[:5:5], step{0, "cancel", BreakerHalfOpen}, step{0, "ask", BreakerHalfOpen}, step{0, "refused", BreakerHalfOpen}),
		"trial is lost":       append(trial[:5:5], step{5 * time.Second, "ask", BreakerHalfOpen}, step{0, "fail", BreakerHalfOpen}, step{0, "succeed", BreakerRecovering}),
		"recovering":          append(recovering[:6:6], step{10 * time.Second, "ask", BreakerClosed}, step{0, "fail", BreakerClosed}),
		"recovering, fails":   append(recovering[:6:6], step{9 * time.Second, "ask", BreakerRecovering}, step{0, "ask", BreakerRecovering}, step{0, "succeed", BreakerRecovering}, step{0, "fail", BreakerOpen}),
		"from before":         append([]step{{0, "ask", BreakerClosed}}, append(broken[:1:1], step{0, "ask", BreakerClosed}, step{0, "fail", BreakerClosed}, step{0, "fail", BreakerOpen}, step{5 * time.Second, "ask", BreakerHalfOpen}, step{0, "fail", BreakerHalfOpen}, step{0, "succeed", BreakerRecovering})...),
	} {
		t.Run(name, func(t *testing.T) {
			b := &Breaker{Volume: 2}
			b.once.Do(b.init)
			c := &b.c
			var now time.Duration
			var epochs []uint64
			for i, s := range steps {
				now += s.after
				switch s.do {
				case "ask", "refused":
					_, _, ok := c.allow(now, 0.899) // just below nine tenths of the ramp
					require.Equal(t, s.do == "ask", ok, "step %d", i)
					if ok {
						epochs = append(epochs, c.epoch)
					}
				default:
					how := map[string]ending{"succeed": succeeded, "fail": failed, "cancel": canceled}[s.do]
					if epochs[0] == c.epoch {
						c.end(now, how)
					}
					epochs = epochs[1:]
				}
				require.Equal(t, s.want, c.state, "step %d", i)
			}
		})
	}
}

// TestBreakerLife has a service fail for a minute: callers are refused but for a trial
// each five seconds, and then return by and by.
func TestBreakerLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []BreakerState
		b := &Breaker{OnChange: func(c BreakerChange) { changes = append(changes, c.To) }}
		second := func(ok bool) (let int) {
			for range 1000 {
				if p, wait, may := b.Allow(); may {
					let++
					if ok {
						p.Succeed()
					} else {
						p.Fail()
					}
				} else {
					require.LessOrEqual(t, wait, 5*time.Second)
				}
				time.Sleep(time.Millisecond)
			}
			return let
		}
		require.Equal(t, 1000, second(true))
		require.Equal(t, 1000, second(false), "half of ten seconds must fail, of which there were two")
		let := 0
		for range 60 {
			let += second(false)
		}
		require.InDelta(t, 60/5, let, 2)
		require.Equal(t, BreakerOpen, b.State())
		for let = 0; b.State() != BreakerRecovering; {
			let += second(true)
		}
		last := 0
		for range 9 {
			n := second(true)
			require.Greater(t, n, last-100)
			last = n
		}
		require.InDelta(t, 900, last, 150)
		second(true)
		second(true)
		require.Equal(t, 1000, second(true))
		require.Equal(t, BreakerClosed, changes[len(changes)-1])
		require.Equal(t, []BreakerState{BreakerOpen, BreakerHalfOpen, BreakerOpen}, changes[:3])
		st := b.Stats()
		require.Positive(t, st.Refused)
		require.Positive(t, st.Taken)
	})
}

// TestBreakerSums: whatever comes, the sum of the window is that of its slots.
func TestBreakerSums(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := &circuit{share: 2, volume: 1, slot: time.Second, open: time.Second, ramp: time.Second}
	var now time.Duration
	for range 5000 {
		now += time.Duration(rng.IntN(3000)) * time.Millisecond
		if rng.IntN(50) == 0 {
			now += time.Minute
		}
		c.end(now, ending(rng.IntN(3)))
		var sum tally
		for _, s := range c.window {
			sum.failed += s.failed
			sum.ended += s.ended
		}
		require.Equal(t, sum, c.sum)
	}
}

// TestBreakerAtOnce has many callers of a service that comes and goes, for the race
// detector: at most one trial is going on at any time.
func TestBreakerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var trials atomic.Int32
		b := &Breaker{Volume: 5, Window: time.Second, Open: 50 * time.Millisecond, Ramp: 100 * time.Millisecond, OnChange: func(BreakerChange) {}}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 500 {
					p, _, ok := b.Allow()
					if ok && p.Trial() && trials.Add(1) > 1 {
						t.Error("two trials at once")
					}
					time.Sleep(time.Millisecond)
					if !ok {
						continue
					}
					if p.Trial() {
						trials.Add(-1)
					}
					if up.Load() {
						p.Succeed()
					} else {
						p.Fail()
					}
				}
			})
		}
		wg.Go(func() {
			for i := range 5 {
				up.Store(i%2 == 1)
				time.Sleep(200 * time.Millisecond)
			}
		})
		wg.Wait()
	})
}

func TestBreakerStateNames(t *testing.T) {
	require.Equal(t, "half-open", BreakerHalfOpen.String())
	require.Equal(t, "9", BreakerState(9).String())
}

func BenchmarkBreaker(b *testing.B) {
	var br Breaker
	b.ReportAllocs()
	for b.Loop() {
		p, _, _ := br.Allow()
		p.Succeed()
	}
}
