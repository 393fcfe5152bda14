// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Bucket is a single token bucket, [rate.Limiter] with a [Decision]: it holds
// up to Burst tokens and gains Rate.Count of them each Rate.Per. It is the
// plain one; [Limiter] and [Keyed] do the same without a lock, with other laws,
// refunds and a key. All methods may be called at once. The fields must not
// change after first use.
type Bucket struct {
	Rate  Rate // the zero Rate admits nothing; at most one event a nanosecond
	Burst int  // tokens at most, up to 2^53; 0 means Rate.Count, negative means none: one at a time

	mu   sync.Mutex
	lim  *rate.Limiter
	last time.Time // that lim was asked about
}

// bucketMost is the largest burst whose tokens a float64 counts one by one.
const bucketMost = 1 << 53

// at returns the limiter, and now or the last time it was asked about if that
// is later: it takes an earlier time as a step back of the clock, and gives
// the tokens since then a second time. It holds the lock.
func (b *Bucket) at(now time.Time) (*rate.Limiter, time.Time) {
	if b.lim == nil {
		b.lim = rate.NewLimiter(0, 0)
		if b.Rate.Count > 0 {
			perSecond := min(float64(b.Rate.Count)/b.Rate.span().Seconds(), 1e9)
			burst := min(int64(GCRA{Rate: b.Rate, Burst: b.Burst}.burst()), bucketMost)
			b.lim = rate.NewLimiter(rate.Limit(perSecond), int(burst))
		}
	}
	if now.Before(b.last) {
		now = b.last
	}
	b.last = now
	return b.lim, now
}

// Take takes n tokens now, or tells after how long they will be there. N of 0
// takes nothing and tells how things stand; a negative n counts as 0.
func (b *Bucket) Take(n int) Decision {
	return b.take(time.Now(), max(0, n))
}

func (b *Bucket) take(now time.Time, n int) Decision {
	b.mu.Lock()
	defer b.mu.Unlock()
	lim, now := b.at(now)
	// Not ReserveN and Cancel: a reservation that is given back is not given
	// back whole once another has been made, and the tokens are lost.
	d := Decision{OK: n == 0 || lim.AllowN(now, n), Limit: lim.Burst()}
	d.Over = !d.OK
	tokens := lim.TokensAt(now)
	d.Remaining = int(max(0, tokens))
	if missing := float64(d.Limit) - tokens; missing > 0 {
		d.Reset = refill(missing, lim.Limit())
	}
	switch {
	case d.OK:
	case n > d.Limit:
		d.Wait = Never
	default:
		d.Wait = max(1, refill(float64(n)-tokens, lim.Limit()))
	}
	return d
}

// refill returns how long that many tokens take, at most Never.
func refill(tokens float64, limit rate.Limit) time.Duration {
	ns := tokens / float64(limit) * float64(time.Second)
	if ns >= float64(Never) {
		return Never
	}
	return time.Duration(ns)
}

// Wait waits until n tokens are there and takes them, first come first served.
// It returns ErrRefused at once if n is more than the bucket holds,
// context.DeadlineExceeded at once if ctx would end first, and the error of ctx
// if it does end first. Then unused tokens are given back, except those
// reserved after them.
func (b *Bucket) Wait(ctx context.Context, n int) error {
	r, wait := b.reserve(time.Now(), max(0, n))
	if !r.OK() {
		return ErrRefused
	}
	err := error(nil)
	if deadline, ok := ctx.Deadline(); ok && wait > time.Until(deadline) {
		if err = ctx.Err(); err == nil {
			err = context.DeadlineExceeded
		}
	} else {
		err = sleep(ctx, wait)
	}
	if err != nil {
		b.cancel(r)
	}
	return err
}

func (b *Bucket) reserve(now time.Time, n int) (*rate.Reservation, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lim, now := b.at(now)
	r := lim.ReserveN(now, n)
	return r, r.DelayFrom(now)
}

func (b *Bucket) cancel(r *rate.Reservation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, now := b.at(time.Now())
	r.CancelAt(now)
}
