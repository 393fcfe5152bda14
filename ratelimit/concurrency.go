// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"sync"
	"time"
)

// Concurrency lets at most Max callers in at once. Others wait in a queue,
// first come first served, if there is room in it. The zero Concurrency refuses
// all. All methods may be called at once; Max and the other fields must not
// change after first use (see SetMax).
type Concurrency struct {
	Max      int           // places; 0 or negative means none
	MaxQueue int           // callers that may wait for one; 0 or negative means none
	MaxWait  time.Duration // longest wait; 0 or negative means no limit but the context

	mu    sync.Mutex
	ready bool // places has been set from Max
	limit int
	held  int
	first *waiter // of the line
	last  *waiter
	queue int

	taken, refused uint64
}

// Stats returns the totals until now, and how many places there are. Whose context ended
// in the line was not refused.
func (c *Concurrency) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start()
	return Stats{Taken: c.taken, Refused: c.refused, Held: c.held, Places: max(0, c.limit), Queued: c.queue}
}

// A waiter stands in line. Its channel is closed when it has a place.
type waiter struct {
	turn       chan struct{}
	prev, next *waiter
}

// TryAcquire takes a place if one is free and no caller waits for it. A success
// must be followed by one Release.
func (c *Concurrency) TryAcquire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.take() {
		return true
	}
	c.refused++
	return false
}

// take holds the lock.
func (c *Concurrency) take() bool {
	c.start()
	if c.held >= c.limit || c.first != nil {
		return false
	}
	c.held++
	c.taken++
	return true
}

func (c *Concurrency) start() {
	if !c.ready {
		c.ready, c.limit = true, c.Max
	}
}

// Acquire takes a place, and waits for one if need be. It returns ErrRefused
// if the line is full or MaxWait has passed, and the error of ctx if that
// ended first; a free place is taken even if ctx is done. A nil error must be
// followed by one Release.
func (c *Concurrency) Acquire(ctx context.Context) error {
	c.mu.Lock()
	if c.take() {
		c.mu.Unlock()
		return nil
	}
	if c.queue >= c.MaxQueue {
		c.refused++
		c.mu.Unlock()
		return ErrRefused
	}
	w := &waiter{turn: make(chan struct{})}
	c.push(w)
	c.mu.Unlock()

	var late <-chan time.Time
	if c.MaxWait > 0 {
		t := time.NewTimer(c.MaxWait)
		defer t.Stop()
		late = t.C
	}
	err := ErrRefused
	select {
	case <-w.turn:
		return nil
	case <-late:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-w.turn: // it came just now
		return nil
	default:
	}
	c.remove(w)
	if err == ErrRefused {
		c.refused++
	}
	return err
}

// Release gives a place back. How long it was held is of use to [Adaptive],
// which has the same method; here it is ignored. A Release too many panics.
func (c *Concurrency) Release(time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held--; c.held < 0 {
		panic("ratelimit: Release without Acquire")
	}
	c.admit()
}

// SetMax changes the number of places. Callers keep the places that they hold.
func (c *Concurrency) SetMax(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready, c.limit = true, n
	c.admit()
}

// Held returns how many places are taken.
func (c *Concurrency) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// Queued returns how many wait for a place.
func (c *Concurrency) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue
}

// admit gives free places to the line.
func (c *Concurrency) admit() {
	for c.held < c.limit && c.first != nil {
		w := c.first
		c.remove(w)
		c.held++
		c.taken++
		close(w.turn)
	}
}

func (c *Concurrency) push(w *waiter) {
	if w.prev = c.last; c.last != nil {
		c.last.next = w
	} else {
		c.first = w
	}
	c.last = w
	c.queue++
}

func (c *Concurrency) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		c.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		c.last = w.prev
	}
	w.prev, w.next = nil, nil
	c.queue--
}
