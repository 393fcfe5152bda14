// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Limiter is a single limit without a key, of any [Law]. The zero Limiter
// refuses everything. All methods may be called at once by several goroutines;
// none of them takes a lock. A Limiter must not be copied, nor Law changed,
// after first use.
type Limiter struct {
	Law Law // nil refuses everything

	clock clock
	state atomic.Int64

	taken, refused atomic.Uint64 // beside state, which every Take has at hand
}

// Stats returns the totals until now. There is one key, and it is not counted.
func (l *Limiter) Stats() Stats { return Stats{Taken: l.taken.Load(), Refused: l.refused.Load()} }

// count counts the answer to a Take of n.
func (l *Limiter) count(d *Decision, n int) {
	switch {
	case d.Over:
		l.refused.Add(1)
	case n > 0:
		l.taken.Add(1)
	}
}

// Take takes n now, or tells why not. N of 0 takes nothing and tells how
// things stand; a negative n counts as 0.
func (l *Limiter) Take(n int) (d Decision) {
	n = max(0, n)
	if l.Law == nil {
		d = nothing(n)
		l.count(&d, n)
		return d
	}
	now := l.clock.now()
	for {
		state := l.state.Load()
		d = Decision{}
		next := decide(l.Law, state, now, n, &d)
		if next == state || l.state.CompareAndSwap(state, next) {
			l.count(&d, n)
			return d
		}
	}
}

// Wait takes n and waits as long as the law asks for. It returns ErrRefused
// if the law says no, and the error of ctx if that ends first, in which case
// what was taken is given back.
func (l *Limiter) Wait(ctx context.Context, n int) (Decision, error) {
	d := l.Take(n)
	if !d.OK {
		return d, ErrRefused
	}
	if err := sleep(ctx, d.Wait); err != nil {
		l.Refund(d)
		return d, err
	}
	return d, nil
}

// Refund gives back what d took, because it was not used or, under
// [InFlight], because it is done. It must be called at most once for a
// Decision.
func (l *Limiter) Refund(d Decision) {
	if l.Law == nil || d.Cost <= 0 {
		return
	}
	now := l.clock.now()
	for {
		state := l.state.Load()
		if l.state.CompareAndSwap(state, l.Law.Refund(state, now, d)) {
			return
		}
	}
}

// A clock counts from its first use. It reads the monotonic clock only: a
// step of the wall clock neither opens nor shuts a limit.
type clock struct {
	once  sync.Once
	start time.Time
}

func (c *clock) now() time.Duration {
	c.once.Do(c.begin)
	return time.Since(c.start)
}

func (c *clock) begin() { c.start = time.Now() }
