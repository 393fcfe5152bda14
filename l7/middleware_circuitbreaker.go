// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A CircuitBreaker answers 503, without asking a server, while too much of what Next has
// served lately has failed. The laws and the times are those of its
// [ratelimit.Breaker].
//
// It is for what fails as a whole, such as the pool of a [Proxy] in Next: clients have
// their answer, or that of a [Fallback], at once, and servers that are overloaded have
// time to recover. Single servers are taken out by health.Outlier, which does not help
// where all of them fail, and retries are bounded by the Budget of the pool.
//
//	&l7.CircuitBreaker{Breaker: &ratelimit.Breaker{Share: 0.3}, Next: proxy}
//
// A refused exchange has a Retry-After, and ends with the cause l4.ServerDown.
type CircuitBreaker struct {
	Breaker *ratelimit.Breaker // may be that of several handlers

	// Failed says whether an exchange that has ended counts as failed, and whether it
	// counts at all. Nil means: of those that reached a server, or had none to go to,
	// the failed ones are those that the server broke off or was too slow for, and
	// those of status 500 and above but for 501 and 505. Those that the client, a rule or
	// the operator ended do not count.
	Failed func(x *Exchange) (failed, counts bool)

	Refuse http.Handler // answers what is refused; nil means status 503. Retry-After is set on its reply too

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *CircuitBreaker) ServeExchange(x *Exchange) {
	permit, wait, ok := h.Breaker.Allow()
	if !ok {
		h.refuse(x, wait)
		return
	}
	if permit.Trial() {
		h.trial(x, permit)
		return
	}
	returned, settled := false, false
	defer func() { // a handler or Failed may panic
		if !settled {
			h.panicked(x, permit, returned)
		}
	}()
	Serve(h.Next, x)
	returned = true
	failed, counts := h.judge(x)
	settled = true
	settle(permit, failed, counts)
}

// panicked ends a permit in a panic: that of a handler, in which nothing is known of the
// servers, or of a Failed; or http.ErrAbortHandler, by which a reply that a server has
// broken off passes through middleware of net/http inside.
func (h *CircuitBreaker) panicked(x *Exchange, permit ratelimit.BreakerPermit, returned bool) {
	if failed, counts := failedByServer(x); !returned && h.Failed == nil && failed && counts {
		permit.Fail()
		return
	}
	permit.Cancel()
}

// trial is for the one exchange that decides. It has succeeded as soon as its reply
// begins, as that may be a stream that lasts for hours.
func (h *CircuitBreaker) trial(x *Exchange, permit ratelimit.BreakerPermit) {
	returned, settled := false, false
	defer func() {
		if !settled {
			h.panicked(x, permit, returned)
		}
	}()
	if h.Failed == nil {
		x.OnReply(ReplyFunc(func(x *Exchange, r *Reply) {
			if !settled && x.Record.Tries > 0 && !failedStatus(r.Status) && completed(x.Record.Termination) {
				settled = true
				permit.Succeed()
			}
		}))
	}
	Serve(h.Next, x)
	if returned = true; settled {
		return
	}
	failed, counts := h.judge(x)
	settled = true
	settle(permit, failed, counts)
}

func (h *CircuitBreaker) judge(x *Exchange) (failed, counts bool) {
	if h.Failed != nil {
		return h.Failed(x)
	}
	return failedByServer(x)
}

// settle ends a permit.
func settle(permit ratelimit.BreakerPermit, failed, counts bool) {
	switch {
	case !counts:
		permit.Cancel()
	case failed:
		permit.Fail()
	default:
		permit.Succeed()
	}
}

// failedByServer is what a nil Failed means.
func failedByServer(x *Exchange) (failed, counts bool) {
	switch x.Record.Termination.Cause {
	case l4.ServerAborted, l4.ServerTimeout, l4.ServerDown:
		return true, true
	case l4.Normal, l4.Local:
		return failedStatus(x.Record.Status), x.Record.Tries > 0
	}
	return false, false
}

func failedStatus(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported
}

func (h *CircuitBreaker) refuse(x *Exchange, wait time.Duration) {
	seconds := strconv.FormatInt(max(1, int64((wait+time.Second-1)/time.Second)), 10)
	x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Header.Set("Retry-After", seconds) }))
	x.Record.Decide("CircuitBreaker: open")
	if h.Refuse != nil {
		Serve(h.Refuse, x)
		return
	}
	x.Error(http.StatusServiceUnavailable, endOf(l4.ServerDown, l4.PhaseQueue))
}

// ServeHTTP implements [http.Handler].
func (h *CircuitBreaker) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
