// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Bucket is one token bucket for everybody, [rate.Limiter] with a
// [Decision]: it holds up to Burst tokens and gains Rate.Count of them each
// Rate.Per. It is the plain one; [Limiter] and [Keyed] do the same without a
// lock, with other laws, refunds and a key. All methods may be called at
// once. The fields must not change after first use.
type Bucket struct {
	Rate  Rate // the zero Rate admits nothing
	Burst int  // tokens at most; 0 means Rate.Count, negative means 1

	once sync.Once
	lim  *rate.Limiter
}

func (b *Bucket) limiter() *rate.Limiter {
	b.once.Do(func() {
		if b.Rate.Count <= 0 {
			b.lim = rate.NewLimiter(0, 0)
			return
		}
		perSecond := float64(b.Rate.Count) / b.Rate.span().Seconds()
		b.lim = rate.NewLimiter(rate.Limit(perSecond), GCRA{Rate: b.Rate, Burst: b.Burst}.burst())
	})
	return b.lim
}

// Take takes n tokens now, or tells after how long they will be there. N of 0
// takes nothing and tells how things stand; a negative n counts as 0.
func (b *Bucket) Take(n int) Decision {
	return b.take(time.Now(), max(0, n))
}

func (b *Bucket) take(now time.Time, n int) Decision {
	lim := b.limiter()
	d := Decision{Limit: lim.Burst()}
	if r := lim.ReserveN(now, n); !r.OK() {
		d.Wait = Never
	} else if d.Wait = r.DelayFrom(now); d.Wait > 0 {
		r.CancelAt(now)
	} else {
		d.OK = true
	}
	d.Over = !d.OK
	tokens := lim.TokensAt(now)
	d.Remaining = int(max(0, tokens))
	if missing := float64(d.Limit) - tokens; missing > 0 {
		d.Reset = time.Duration(missing / float64(lim.Limit()) * float64(time.Second))
	}
	return d
}

// Wait waits until n tokens are there and takes them. Its errors are those of
// [rate.Limiter.WaitN]: at once if n is more than the bucket holds or ctx
// would end first.
func (b *Bucket) Wait(ctx context.Context, n int) error {
	return b.limiter().WaitN(ctx, max(0, n))
}
