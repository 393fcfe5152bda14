// SPDX-License-Identifier: Apache-2.0

package health

import (
	"math"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A machine counts rise and fall. It holds one number h in [0, rise+fall-1];
// the server is up if h >= rise.
//
//	pass   h < full: h++, and if then h >= rise: h = full
//	fail   h > 0:    h--, and if then h <  rise: h = 0
//
// so that an up server needs fall failures in a row to go down (a pass between
// them starts the count again), and a down one rise passes in a row to come up.
// A conditional pass counts as a pass, and makes an up server Stopping; any
// pass afterwards makes it Up again at once. A server that is down does
// not become Stopping: only an ordinary pass brings it back.
//
// Source: HAProxy 3.5, src/check.c, set_server_check_status and check_notify_*.
type machine struct {
	rise, fall int
	h          int
	state      balance.Health
}

// maxCount is the most that rise and fall may be: never, in practice.
const maxCount = math.MaxInt32 / 2

// full is h of a server that passed its last checks.
func (m *machine) full() int { return m.rise + m.fall - 1 }

// start sets the initial state.
func (m *machine) start(i Initial) {
	m.state = balance.Up
	switch i {
	case InitialUp:
		m.h = m.rise
	case InitialFullyUp:
		m.h = m.full()
	case InitialDown:
		m.h, m.state = m.rise-1, balance.Down
	case InitialFullyDown:
		m.h, m.state = 0, balance.Down
	}
}

func (m *machine) pass() {
	m.rises()
	if m.h >= m.rise {
		m.state = balance.Up
	}
}

func (m *machine) stopping() {
	m.rises()
	if m.state == balance.Up {
		m.state = balance.Stopping
	}
}

func (m *machine) rises() {
	if m.h < m.full() {
		if m.h++; m.h >= m.rise {
			m.h = m.full()
		}
	}
}

func (m *machine) fail() {
	if m.h > 0 {
		m.h--
	}
	if m.h < m.rise {
		m.h, m.state = 0, balance.Down
	}
}

// sudden prepares h for sudden death: the second failure from now on is fatal.
func (m *machine) sudden() {
	if m.h > m.rise {
		m.h = m.rise + 1
	}
}

// doomed prepares h so that one failure is fatal.
func (m *machine) doomed() {
	if m.h > m.rise {
		m.h = m.rise
	}
}

// interval returns the time from this probe to the next: normal at full
// health, down at none, fast in between.
func (m *machine) interval(normal, fast, down time.Duration) time.Duration {
	switch m.h {
	case m.full():
		return normal
	case 0:
		return down
	}
	return fast
}

// progress says how far the server is on its way to another state: failures
// of fall for one that is up, passes of rise for one that is down.
func (m *machine) progress() (n, of int) {
	if m.h >= m.rise {
		return m.full() - m.h, m.fall
	}
	return m.h, m.rise
}
