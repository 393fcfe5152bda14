// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What the parts of a law admit together in ten minutes is what the law does, but for
// one each.
func TestPartsAreNoMoreThanTheLaw(t *testing.T) {
	for _, law := range []Divisible{
		GCRA{Rate: PerSecond(10)}, GCRA{Rate: PerSecond(100), Burst: 7}, GCRA{Rate: PerMinute(1)}, GCRA{Rate: PerSecond(50), Burst: -1}, GCRA{},
		Window{Rate: PerSecond(20)}, Window{Rate: PerMinute(3)}, Window{},
	} {
		for _, n := range []int{2, 3, 7} {
			t.Run(fmt.Sprintf("%T %v by %d", law, law, n), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(uint64(n), 1))
				whole, parts := int64(0), make([]int64, n)
				var one, all int
				own := law.Part(n)
				for now := 3 * time.Minute; now < 13*time.Minute; now += time.Duration(rnd.IntN(int(40 * time.Millisecond))) {
					// Demand is above the law everywhere, so that both admit what they can.
					var d Decision
					if whole, d = law.Take(whole, now, 1); d.OK {
						one++
					}
					for i := range parts {
						if parts[i], d = own.Take(parts[i], now, 1); d.OK {
							all++
						}
					}
				}
				rate, least := Rate{}, 0.95
				switch law := law.(type) {
				case GCRA:
					rate = law.Rate
				case Window:
					rate, least = law.Rate, 0.5
				}
				most := float64(rate.Count) * 10 * float64(time.Minute) / float64(rate.span())
				require.LessOrEqual(t, float64(all), 1.01*most+float64(rate.Count+n))
				require.GreaterOrEqual(t, float64(all), least*float64(one)-float64(n))
			})
		}
	}
	require.Equal(t, InFlight{Max: 3}, InFlight{Max: 10}.Part(3))
	require.Equal(t, InFlight{Max: 1}, InFlight{Max: 1}.Part(3))
	require.Equal(t, InFlight{}, InFlight{}.Part(3))
	require.Equal(t, Window{Rate: Rate{1, 3 * time.Hour}}, Window{Rate: Rate{2, 2 * time.Hour}}.Part(3))
	require.Equal(t, Window{Rate: Rate{2, 700 * time.Millisecond}}, Window{Rate: PerSecond(20)}.Part(7))
}

// Three gateways whose store is away admit together what the law says; when two are
// left, each has half. A law that cannot be divided stays whole.
func TestLocalLimitsAreDivided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 3
		gateway := func(law Law) *Shared[string] {
			return &Shared[string]{Store: &away{err: errors.New("away")}, Law: law, Gateways: func() int { return n }, Logger: slog.New(slog.DiscardHandler)}
		}
		admitted := func(s *Shared[string]) (ok int) {
			for range 100 {
				if s.Take("k", 1).OK {
					ok++
				}
			}
			return ok
		}
		law := GCRA{Rate: PerSecond(30)}
		require.Equal(t, 10, admitted(gateway(law)))
		one := gateway(law)
		require.Equal(t, 10, admitted(one))
		n = 2
		time.Sleep(time.Second)
		require.Equal(t, 15, admitted(one))
		n = 0
		time.Sleep(2 * time.Second)
		require.Equal(t, 30, admitted(one))
		n = 3
		require.Equal(t, 100, admitted(gateway(Unlimited{})))
		broken := gateway(law)
		broken.Gateways = func() int { panic("host") }
		require.Equal(t, 30, admitted(broken))
	})
}
