// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"sync"
	"time"
)

// turns are of the whole process, as its processors are.
var turns handshakes

// handshakes lets TLS handshakes compute one by one: one goes on each time that the
// network has been asked what is ready, after what has become so by then. See asker.
//
//	read, wait ─┐                  asked: the first of again, or of first
//	read, wait ─┼─> again, first ──────────────────────────────────────────> compute, write
//	read, wait ─┘
//
// Where processors are idle they ask all the time, and so as many compute as there are
// processors.
type handshakes struct {
	mu     sync.Mutex
	first  []*place // wait for their first turn
	again  []*place // have had one: they are nearly done
	giving bool     // a goroutine gives turns
	asker
}

// A place in the queue is waited for by locking it a second time. It may be given by a goroutine
// outside of the bubble of testing/synctest that the waiting one is in, where a channel
// must not be closed.
type place struct{ sync.Mutex }

// wait returns when a handshake that has read may compute. If no other is waiting, one
// that has had a turn goes on at once.
func (h *handshakes) wait(again bool) {
	h.mu.Lock()
	if again && !h.giving || !h.ready() {
		h.mu.Unlock()
		return
	}
	t := &place{}
	t.Lock()
	if again {
		h.again = append(h.again, t)
	} else {
		h.first = append(h.first, t)
	}
	if !h.giving {
		h.giving = true
		go h.give()
	}
	h.mu.Unlock()
	t.Lock()
}

// give gives turns until nobody waits.
func (h *handshakes) give() {
	last := time.Now()
	for {
		h.ask()
		now := time.Now()
		n := turnsAfter(now.Sub(last))
		last = now
		h.mu.Lock()
		for ; n > 0; n-- {
			t := h.next()
			if t == nil {
				h.giving = false
				h.mu.Unlock()
				return
			}
			t.Unlock()
		}
		h.mu.Unlock()
	}
}

// turnsAfter returns how many turns are given d after the last ones, most of which take
// less than a millisecond. After much more the processors have other work than the
// network's, for which it is asked only every ten milliseconds: of that time handshakes get a
// part.
func turnsAfter(d time.Duration) int {
	return 1 + min(int(d/(2*time.Millisecond)), 7)
}

// next takes out the handshake whose turn it is, or returns nil.
func (h *handshakes) next() (t *place) {
	for _, q := range []*[]*place{&h.again, &h.first} {
		if s := *q; len(s) > 0 {
			t, s[0] = s[0], nil
			if *q = s[1:]; len(s) == 1 {
				*q = nil
			}
			return t
		}
	}
	return nil
}
