// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The timers of a Parker fire when they are due, in whatever order they have been set,
// moved and stopped.
func TestRelayTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var timers relayTimers
		all := make([]*relay, 50)
		due := make([]time.Duration, len(all)) // since start; 0 means stopped
		for i := range all {
			all[i] = new(relay) // which has ended, so that tick does nothing
		}
		start := instantNow()
		check := func() {
			timers.mu.Lock()
			defer timers.mu.Unlock()
			set := 0
			for i, r := range all {
				at := start + instant(due[i])
				if waits := due[i] != 0 && at > instantNow(); waits != (r.timerAt != 0) {
					t.Fatalf("%d is due at %v, and at place %d", i, due[i], r.timerAt)
				} else if !waits {
					continue
				}
				set++
				place := int(r.timerAt - 1)
				above := timers.heap[(max(place, 1)-1)/2]
				if timers.heap[place] != (relayTimer{at, r}) || above.due > at {
					t.Fatalf("%d is at place %d: %v, below %v", i, place, timers.heap[place], above)
				}
			}
			require.Len(t, timers.heap, set)
		}
		for range 1000 {
			i := rand.IntN(len(all))
			now := time.Duration(instantNow() - start)
			switch k := rand.IntN(10); {
			case k == 0:
				due[i] = 0
				timers.stop(all[i])
			case k == 1:
				time.Sleep(time.Duration(rand.IntN(20)) * time.Second)
				synctest.Wait()
			default:
				due[i] = now + time.Duration(1+rand.IntN(300))*time.Second
				timers.set(all[i], start+instant(due[i]))
			}
			check()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		check()
		require.Empty(t, timers.heap)
	})
}
