// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"runtime"
	"sync"
	"syscall"
	"time"
)

// turns are of the whole process, as its processors are.
var turns handshakes

// handshakes lets a few TLS handshakes compute each time that the network has been asked
// what is ready, after what has become so by then: see turnsAfter and asker.
//
//	read, wait ─┐                  asked: the first of again or of first
//	read, wait ─┼─> again, first ──────────────────────────────────────────> compute, write
//	read, wait ─┘
//
// Where processors are idle they ask all the time, and so as many compute as there are
// processors.
type handshakes struct {
	mu     sync.Mutex
	first  []*handshakeTurn // wait for their first turn
	again  []*handshakeTurn // have had one: they are nearly done, or seem so
	odd    bool             // the last turn was one of again
	giving bool             // a goroutine gives turns
	cost   time.Duration    // of a turn
	asker
}

// await returns when a handshake that has read may compute.
func (h *handshakes) await(t *handshakeTurn) {
	h.mu.Lock()
	if !h.ready() {
		h.mu.Unlock()
		return
	}
	if t.had {
		h.again = append(h.again, t)
	} else {
		h.first = append(h.first, t)
	}
	if !h.giving {
		h.giving = true
		go h.give()
	}
	h.mu.Unlock()
	t.wait.Lock()
}

// took learns the cost of a turn, as the mean of about the last eight. Of one that took
// longer than the scheduler lets a goroutine compute, most was spent waiting.
func (h *handshakes) took(d time.Duration) {
	h.mu.Lock()
	h.cost += (min(d, 10*time.Millisecond) - h.cost) / 8
	h.mu.Unlock()
}

// give gives turns until no handshake waits for one.
func (h *handshakes) give() {
	last, n, measured := computed(), 0, true
	for {
		h.ask()
		now, procs := computed(), runtime.GOMAXPROCS(0)
		h.mu.Lock()
		if measured {
			n = turnsAfter(now-last, procs, n, h.cost)
		} else { // most take less than a millisecond
			n = min(turnsAfter(now-last, procs, n, max(h.cost, time.Millisecond)), 8)
		}
		last, measured = now, true
		for range n {
			t := h.next()
			if t == nil {
				h.giving = false
				h.mu.Unlock()
				return
			}
			measured = measured && !t.unmeasured
			t.wait.Unlock()
		}
		h.mu.Unlock()
	}
}

// computed returns the time that the process has computed, on all processors.
func computed() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// turnsAfter returns how many turns are given when the process has computed for d since it
// was given n, each of which costs so much: as many as take a millisecond, or one, as long as
// handshakes are most of the work. Where procs processors have more to do, the network is
// asked less often, at worst every ten milliseconds: handshakes get half of the time that the
// rest took, so that they neither starve nor starve it. The bounds are for a cost that is not
// known yet or changes at once, and for one that is small beside that of a connection.
func turnsAfter(d time.Duration, procs, n int, cost time.Duration) int {
	cost = max(cost, 250*time.Microsecond)
	rest := d - time.Duration(n)*cost
	return max(1, int(time.Millisecond/cost), min(int(rest/(2*cost)), 32*procs))
}

// next takes out the handshake whose turn it is, or returns nil. Those of again go first, but
// only every other time: a peer can send a byte at a time, and have a turn for each.
func (h *handshakes) next() *handshakeTurn {
	q := &h.again
	if h.odd && len(h.first) > 0 || len(h.again) == 0 {
		q = &h.first
	}
	h.odd = q == &h.again
	s := *q
	if len(s) == 0 {
		return nil
	}
	t := s[0]
	s[0] = nil
	if *q = s[1:]; len(s) == 1 {
		*q = nil
	}
	return t
}
