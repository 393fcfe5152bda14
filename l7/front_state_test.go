// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	allStates = []int32{stateBusy, stateIdle, stateInterrupted, stateParked}
	allMoves  = []move{moveRest, moveWake, moveInterrupt, movePark, moveResume}
)

// Each move from each state, as front_state.go draws them. What is not listed does
// not apply, and changes nothing.
func TestMovesOfAConnection(t *testing.T) {
	type step struct {
		m    move
		from int32
	}
	table := map[step]int32{
		{moveRest, stateBusy}:        stateIdle,
		{moveWake, stateIdle}:        stateBusy,
		{moveWake, stateInterrupted}: stateBusy,
		{moveInterrupt, stateIdle}:   stateInterrupted,
		{movePark, stateBusy}:        stateParked,
		{moveResume, stateParked}:    stateBusy,
	}
	for _, m := range allMoves {
		for _, from := range allStates {
			want, applies := table[step{m, from}]
			if !applies {
				want = from
			}
			to, ok := m.next(from)
			require.Equal(t, applies, ok, "move %d from %d", m, from)
			require.Equal(t, want, to, "move %d from %d", m, from)

			var a activity
			a.state.Store(from)
			was, ok := a.do(m)
			require.Equal(t, applies, ok, "move %d from %d", m, from)
			require.Equal(t, from, was)
			require.True(t, a.is(want), "move %d from %d", m, from)
		}
	}
}

// A wait that was ended is told of once, whoever comes first: the goroutine that
// wakes or those that interrupt it.
func TestWaitEndsOnce(t *testing.T) {
	for range 5000 {
		var a activity
		a.rest(1)
		var wg sync.WaitGroup
		ended := make([]bool, 3)
		for i := range ended {
			wg.Go(func() { ended[i] = a.interrupt() })
		}
		interrupted := a.wake()
		wg.Wait()
		n := 0
		for _, e := range ended {
			if e {
				n++
			}
		}
		require.LessOrEqual(t, n, 1)
		require.Equal(t, interrupted, n == 1)
		require.True(t, a.is(stateBusy))
	}
}

// Nobody ends a wait that has just ended: that would end the exchange that follows.
func TestInterruptLeavesTheNextStateAlone(t *testing.T) {
	for _, m := range allMoves {
		for _, from := range allStates {
			if _, applies := m.next(from); !applies {
				continue
			}
			for _, now := range allStates {
				var a activity
				a.state.Store(now) // since from was read
				ok, done := a.doFrom(from, m)
				require.True(t, ok)
				require.Equal(t, now == from, done)
				require.True(t, done || a.is(now), "move %d from %d, while it is %d", m, from, now)
			}
		}
	}
}

// What the sweeper reads of a connection belongs to the state that it sees.
func TestSweeperReadsTimesOfTheState(t *testing.T) {
	var a activity
	a.rest(7)
	ticks, ok := a.idleFor(9)
	require.True(t, ok)
	require.EqualValues(t, 2, ticks)
	a.wake()
	a.rest(neverSweep) // settled: only its deadline ends the wait
	_, ok = a.idleFor(1 << 40)
	require.False(t, ok)
	require.False(t, a.wake())
	a.park(3 * time.Second)
	require.True(t, a.is(stateParked))
	require.Equal(t, 2*time.Second, a.parkedFor(5*time.Second))
	require.False(t, a.interrupt(), "there is no wait to be ended")
	a.resume()
	require.True(t, a.is(stateBusy))
	require.Equal(t, 2*time.Second, a.parkedFor(5*time.Second), "it stays for a sweeper that is late")
}

// An ending only becomes worse, in the order that end goes by.
func TestEndingOnlyBecomesWorse(t *testing.T) {
	all := []ending{endsNot, endsClosed, endsLate, endsBroken, endsHanded}
	for i, a := range all {
		for j, b := range all {
			n := a
			n.atLeast(b)
			require.Equal(t, all[max(i, j)], n)
		}
		require.Equal(t, i > 0, a.closes())
	}
	for range 1000 {
		n, worst := endsNot, 0
		for range rand.IntN(6) {
			i := rand.IntN(len(all))
			n.atLeast(all[i])
			worst = max(worst, i)
		}
		require.Equal(t, all[worst], n)
	}
}
