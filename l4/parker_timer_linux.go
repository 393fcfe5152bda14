// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"slices"
	"sync"
	"time"
)

// relayTimers are the timers of the relays that a Parker moves: one of package time for all
// of them, at the earliest time that one is due, and a heap of the others. Each takes a
// tenth of the memory of a time.Timer. Its mu may be locked while mu of a relay is held, and
// not the other way round.
type relayTimers struct {
	mu   sync.Mutex
	heap []relayTimer // by due
	one  *time.Timer  // nil until needed
	at   instant      // when one fires; 0 means not at all
}

type relayTimer struct {
	due instant
	r   *relay
}

// set has r.tick called at due, instead of when it was set to. r.mu is held.
func (t *relayTimers) set(r *relay, due instant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.timerAt == 0 {
		if n := len(t.heap); n == cap(t.heap) {
			t.heap = slices.Grow(t.heap, max(n, 16)) // append would leave more garbage
		}
		t.heap = append(t.heap, relayTimer{})
		t.put(len(t.heap)-1, relayTimer{due, r})
	} else {
		t.heap[r.timerAt-1].due = due
	}
	t.fix(int(r.timerAt) - 1)
	t.arm()
}

// stop undoes set. r.mu is held.
func (t *relayTimers) stop(r *relay) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.timerAt > 0 {
		t.remove(int(r.timerAt) - 1)
	}
}

// arm sets the one timer if the earliest is due before it.
func (t *relayTimers) arm() {
	if len(t.heap) == 0 || t.at != 0 && t.at <= t.heap[0].due {
		return
	}
	t.at = t.heap[0].due
	if d := time.Until(t.at.time()); t.one == nil {
		t.one = time.AfterFunc(d, t.fire)
	} else {
		t.one.Reset(d)
	}
}

// fire calls tick of all that are due.
func (t *relayTimers) fire() {
	var due []*relay
	t.mu.Lock()
	t.at = 0
	for now := instantNow(); len(t.heap) > 0 && t.heap[0].due <= now; {
		due = append(due, t.heap[0].r)
		t.remove(0)
	}
	t.arm()
	t.mu.Unlock()
	for _, r := range due {
		go r.tick() // it may end the relay, and call the host
	}
}

func (t *relayTimers) put(i int, x relayTimer) {
	t.heap[i] = x
	x.r.timerAt = int32(i + 1)
}

func (t *relayTimers) remove(i int) {
	last := len(t.heap) - 1
	t.heap[i].r.timerAt = 0
	moved := t.heap[last]
	t.heap[last] = relayTimer{}
	if t.heap = t.heap[:last]; i < last {
		t.put(i, moved)
		t.fix(i)
	}
}

// fix moves the one at i, which alone may be out of order, to where it belongs.
func (t *relayTimers) fix(i int) {
	x := t.heap[i]
	for i > 0 {
		above := (i - 1) / 2
		if t.heap[above].due <= x.due {
			break
		}
		t.put(i, t.heap[above])
		i = above
	}
	for {
		below := 2*i + 1
		if below+1 < len(t.heap) && t.heap[below+1].due < t.heap[below].due {
			below++
		}
		if below >= len(t.heap) || x.due <= t.heap[below].due {
			break
		}
		t.put(i, t.heap[below])
		i = below
	}
	t.put(i, x)
}
