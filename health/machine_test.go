// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestMachineStories walks through rise 2, fall 3. An event is p for a pass, f
// for a failure, s for a conditional pass; below each is the state it leaves.
func TestMachineStories(t *testing.T) {
	for _, tt := range []struct {
		name    string
		initial Initial
		events  string
		states  string // U, S or D after each event
	}{
		{"one failure takes down what is only assumed up", InitialUp, "fpp", "DDU"},
		{"one pass makes up", InitialDown, "p", "U"},
		{"and one failure from there does not take down", InitialDown, "pf", "UU"},
		{"a proven server needs three", InitialFullyUp, "fff", "UUD"},
		{"a pass starts the count again", InitialFullyUp, "ffpffpfff", "UUUUUUUUD"},
		{"a down server needs two passes", InitialFullyDown, "ppp", "DUU"},
		{"a failure starts the count again", InitialFullyDown, "pfpp", "DDDU"},
		{"down stays down", InitialFullyDown, "ffff", "DDDD"},
		{"404 stops a server that is up", InitialFullyUp, "sp", "SU"},
		{"a stopping one goes down like any other", InitialFullyUp, "sfff", "SSSD"},
		{"it stops even if only assumed up", InitialUp, "s", "S"},
		{"a server that is down does not come up to stop", InitialFullyDown, "sss", "DDD"},
		{"but those count as passes", InitialFullyDown, "ssp", "DDU"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{rise: 2, fall: 3}
			m.start(tt.initial)
			var got string
			for _, event := range tt.events {
				switch event {
				case 'p':
					m.pass()
				case 's':
					m.stopping()
				case 'f':
					m.fail()
				}
				got += map[balance.Health]string{balance.Up: "U", balance.Stopping: "S", balance.Down: "D"}[m.state]
			}
			require.Equal(t, tt.states, got)
		})
	}
}

// TestMachineFormula compares the machine with HAProxy's formula, written down
// once more as plainly as possible, over random rows of results.
func TestMachineFormula(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		rise, fall := 1+rng.IntN(5), 1+rng.IntN(5)
		initial := Initial(rng.IntN(4))
		m := machine{rise: rise, fall: fall}
		m.start(initial)
		h := map[Initial]int{InitialUp: rise, InitialFullyUp: rise + fall - 1, InitialDown: rise - 1, InitialFullyDown: 0}[initial]
		passes, failures := 0, 0 // in a row
		for step := range 60 {
			was := m.state
			if rng.IntN(2) == 0 {
				m.pass()
				if h < rise+fall-1 {
					if h++; h >= rise {
						h = rise + fall - 1
					}
				}
				passes, failures = passes+1, 0
			} else {
				m.fail()
				if h > 0 {
					if h--; h < rise {
						h = 0
					}
				}
				passes, failures = 0, failures+1
			}
			story := fmt.Sprintf("rise %d fall %d initial %d step %d", rise, fall, initial, step)
			require.Equal(t, h, m.h, story)
			require.Equal(t, h >= rise, m.state == balance.Up, story)
			// No state change is faster than rise and fall allow, once the initial state is behind.
			if step >= rise+fall && was == balance.Up && m.state == balance.Down {
				require.GreaterOrEqual(t, failures, fall, story)
			}
			if step >= rise+fall && was == balance.Down && m.state == balance.Up {
				require.GreaterOrEqual(t, passes, rise, story)
			}
		}
	}
}

func TestMachineInterval(t *testing.T) {
	m := machine{rise: 2, fall: 3}
	m.start(InitialFullyUp)
	next := func() string {
		return m.interval(time.Second, 2*time.Second, 3*time.Second).String()
	}
	require.Equal(t, "1s", next(), "at full health")
	m.fail()
	require.Equal(t, "2s", next(), "in transition")
	m.fail()
	m.fail()
	require.Equal(t, "3s", next(), "down")
	m.pass()
	require.Equal(t, "2s", next(), "in transition")
	m.pass()
	require.Equal(t, "1s", next(), "at full health again")
}
