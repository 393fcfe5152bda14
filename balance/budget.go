// SPDX-License-Identifier: Apache-2.0

package balance

import "sync/atomic"

// Budget bounds how many retries and hedges of a pool run at once, over all callers: max(Min, Share
// * (leases + waiting requests + the request that asks)). Without it, retries multiply the load of
// servers that fail because of load. (Envoy, "Retry budgets".)
type Budget struct {
	Share float64 // 0 means 0.2, negative means none: Min alone counts
	Min   int     // 0 means 3, negative means none
}

// limit returns how many retries may run for that many active requests.
func (b Budget) limit(active int64) int64 {
	share, least := b.Share, int64(b.Min)
	if share == 0 {
		share = 0.2
	}
	if least == 0 {
		least = 3
	}
	return max(least, int64(share*float64(active)), 0)
}

type retryBudget struct {
	_     [cacheLine]byte
	going atomic.Int64
	_     [cacheLine - 8]byte
}

// A RetryPermit is a share of the budget, to be returned by Done.
type RetryPermit struct{ b *retryBudget }

// TryRetry asks the budget for one retry or hedge. If it is granted, Done must be
// called on the RetryPermit when the retry has ended.
func (p *Pool) TryRetry() (RetryPermit, bool) {
	p.init()
	return p.core.tryRetry()
}

// TryHedge is [Pool.TryRetry] for a hedge: the budget is the same, but [Stats] tell them
// apart.
func (p *Pool) TryHedge() (RetryPermit, bool) {
	p.init()
	r, ok := p.core.tryRetry()
	if ok {
		p.core.counters.hedged.Add(1)
	}
	return r, ok
}

func (c *core) tryRetry() (RetryPermit, bool) {
	limit := c.conf.Budget.limit(c.active.sum() + c.queue.waiting.Load() + 1)
	for b := &c.retries; ; {
		n := b.going.Load()
		if n >= limit {
			c.counters.overBudget.Add(1)
			return RetryPermit{}, false
		}
		if b.going.CompareAndSwap(n, n+1) {
			return RetryPermit{b}, true
		}
	}
}

// Done returns the share. On the zero RetryPermit it does nothing.
func (r RetryPermit) Done() {
	if r.b != nil && r.b.going.Add(-1) < 0 {
		panic("balance: Retry.Done called more often than there were retries")
	}
}
