// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"time"
)

// wait is where one goroutine waits for another. It is guarded by the mu of a
// link.
type wait struct {
	ch   chan struct{} // nil while no goroutine waits
	due  time.Time     // when the wait times out; zero means never
	late bool          // it has timed out
	at   int           // index among the sleepers, plus 1; 0 means none
}

func (w *wait) wake() {
	if w.ch != nil {
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

// sleepFor waits for wake with the lock released. If d is not 0 it waits for
// about d at most and returns false when that has passed. The caller must check
// its condition again.
func (k *h2Link) sleepFor(w *wait, d time.Duration) bool {
	return k.sleepUntil(w, deadlineIn(time.Now(), d))
}

func (k *h2Link) sleepUntil(w *wait, due time.Time) bool {
	if n := len(k.chans); n > 0 {
		w.ch = k.chans[n-1]
		k.chans = k.chans[:n-1]
	} else {
		w.ch = make(chan struct{}, 1)
	}
	w.late = false
	if w.due = due; !due.IsZero() {
		k.sleep.add(w, k.late)
	}
	k.mu.Unlock()
	<-w.ch
	k.mu.Lock()
	k.sleep.remove(w)
	select {
	case <-w.ch: // already woken
	default:
	}
	k.chans = append(k.chans, w.ch)
	w.ch = nil
	return !w.late
}

// wakeLate wakes the waits that have timed out.
func (k *h2Link) wakeLate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sleep.expire(time.Now())
}

// sleepers are the waits of a connection that have a timeout. They share one
// timer, which is only ever moved forward: most waits end long before their
// timeout.
type sleepers struct {
	list  []*wait
	timer *time.Timer
	next  time.Time // when the timer fires; zero means that it is not set
}

func (s *sleepers) add(w *wait, expire func()) {
	s.list = append(s.list, w)
	w.at = len(s.list)
	if !s.next.IsZero() && !w.due.Before(s.next) {
		return
	}
	s.next = w.due
	if d := time.Until(w.due); s.timer == nil {
		s.timer = time.AfterFunc(d, expire)
	} else {
		s.timer.Reset(d)
	}
}

func (s *sleepers) remove(w *wait) {
	if w.at == 0 {
		return
	}
	last := s.list[len(s.list)-1]
	s.list[w.at-1], last.at = last, w.at
	s.list[len(s.list)-1] = nil
	s.list = s.list[:len(s.list)-1]
	w.at = 0
}

func (s *sleepers) expire(now time.Time) {
	s.next = time.Time{}
	for _, w := range s.list {
		switch {
		case !w.due.After(now):
			if !w.late {
				w.late = true
				w.wake()
			}
		case s.next.IsZero() || w.due.Before(s.next):
			s.next = w.due
		}
	}
	if !s.next.IsZero() {
		s.timer.Reset(s.next.Sub(now))
	}
}

func (s *sleepers) stop() {
	if s.timer != nil {
		s.timer.Stop()
		s.next = time.Time{} // or later sleepers would not be woken
	}
}
