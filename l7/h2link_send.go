// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// An h2Sender is the sending side of a stream. Its fields are guarded by the mu
// of the link.
type h2Sender struct {
	st     *h2.Stream
	queued bool // waits in the link's queue
	turn   bool // has been taken out of the queue to send
	send   wait
}

// sendData sends all of p. It waits while the peer's windows or the connection
// are full, at most limit for each byte. Over returns why nothing more can be
// sent. The lock is held except while it waits.
func (k *h2Link) sendData(s *h2Sender, p []byte, limit time.Duration, over func() error) error {
	for {
		err := over()
		if err == nil {
			p = p[k.add(s, p):]
		}
		if err == nil && len(p) > 0 {
			err = k.awaitTurn(s, limit, over)
		}
		if err != nil || len(p) == 0 {
			k.unqueue(s)
			return err
		}
	}
}

// add sends as much of p as the windows allow now.
func (k *h2Link) add(s *h2Sender, p []byte) (n int) {
	for n < len(p) && len(k.h2.Out) < h2OutHigh {
		if s.turn {
			s.turn = false
			k.turns--
		} else if k.turns > 0 || k.behindOthers(s) {
			break
		}
		m := k.h2.WriteData(s.st, p[n:min(len(p), n+h2Turn-h2.HeaderLen)], false)
		if m == 0 {
			k.wakeSenders() // it has not used its turn: nothing may be written after which that would happen
			break
		}
		if k.last != s.st.ID {
			k.last, k.run = s.st.ID, 0
		}
		k.run++
		k.data += int64(m)
		n += m
	}
	return n
}

// awaitTurn waits until there may be room for more. Limit is for a peer that
// reads nothing: a stream that only waits for other streams keeps waiting.
func (k *h2Link) awaitTurn(s *h2Sender, limit time.Duration, over func() error) error {
	if s.turn { // heads of other streams have taken the room
		s.turn = false
		k.turns--
	}
	before := k.data
	if !s.queued {
		s.queued = true
		k.queue = append(k.queue, s)
	}
	k.mu.Unlock()
	k.flushUntil(s, h2Writes) // takes s out of the queue, unless it waits for the peer
	k.mu.Lock()
	if !s.queued {
		return nil
	}
	if err := over(); err != nil { // happened while the lock was released, before this stream waited
		return err
	}
	if k.sleepFor(&s.send, limit) || !s.queued {
		return nil
	}
	if (k.data != before || k.writing) && s.st.Window() > 0 {
		return nil // it waits for others, or for a write, which has a bound of its own
	}
	return os.ErrDeadlineExceeded
}

// behindOthers reports whether other streams that can send have waited longer
// or are more urgent.
func (k *h2Link) behindOthers(s *h2Sender) bool {
	for _, o := range k.queue {
		if o != s && o.st.Urgency <= s.st.Urgency && k.h2.Sendable(o.st) > 0 {
			return true
		}
	}
	return false
}

// unqueue removes s from the queue, and takes back its turn if it has one.
func (k *h2Link) unqueue(s *h2Sender) {
	if s.turn {
		s.turn = false
		k.turns--
		k.wakeSenders()
	}
	if !s.queued {
		return
	}
	for i, o := range k.queue {
		if o == s {
			k.queue = append(k.queue[:i], k.queue[i+1:]...)
			break
		}
	}
	s.queued = false
}

// wakeSenders wakes streams that wait to send, as far as there is room: the most
// urgent ones, one turn each, in the order in which they asked. One that is ahead of others
// waits for those whose turn it is, which may have no processor yet.
func (k *h2Link) wakeSenders() {
	if len(k.queue) == 0 {
		return
	}
	urgency := uint8(math.MaxUint8)
	for _, s := range k.queue {
		if k.h2.Sendable(s.st) > 0 {
			urgency = min(urgency, s.st.Urgency)
		}
	}
	room := h2OutHigh - len(k.h2.Out) - k.turns*h2Turn
	rest := k.queue[:0]
	for _, s := range k.queue {
		again := s.st.ID == k.last && k.run >= h2Run && k.turns > 0
		if room <= 0 || s.st.Urgency != urgency || k.h2.Sendable(s.st) <= 0 || again {
			rest = append(rest, s)
			continue
		}
		s.queued, s.turn = false, true
		k.turns++
		s.send.wake()
		room -= h2Turn
	}
	clear(k.queue[len(rest):])
	k.queue = rest
}
