// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// Retry says when a request that failed is tried again, on another server if
// there is one. A retry also needs the pool's retry budget, unless no
// connection could be made (balance.ConnectFailed) or a server of HTTP/2 says
// that it has not looked at the request, and a request that can be
// repeated: one of which nothing has reached a server, or one that may
// be sent twice and whose body, if any, is still at hand.
//
// That a reused connection had died is no failure: such a request, if it may
// be sent twice, goes out again on a fresh connection to the same server.
type Retry struct {
	Tries int // in all, the first one included; 0 means 2, negative means none but the first

	// Classes lists the failures to retry; nil means those that prove that nothing
	// reached the server, and connections that ended without a reply.
	Classes []balance.Class
	// Statuses are replies to retry for; they are passed on once there are no
	// tries left.
	Statuses []int
	// Repeatable reports whether a request may be sent twice; nil means those
	// whose method is idempotent (RFC 9110, section 9.2.2).
	Repeatable func(x *Exchange) bool

	// BodyBytes is how much of a request body is kept, while it is sent, so
	// that it can be sent again; 0 means 64 KiB, negative means none beyond what is
	// at hand with the head. With a longer body it is the retry that is given
	// up, never the request, unless a Transport's request has GetBody.
	BodyBytes int

	// Backoff bounds the wait before the second try; it doubles with each
	// further one up to MaxBackoff, and the wait is drawn evenly from between 0
	// and that (full jitter). A request that did not reach its server is
	// retried without a wait as long as there are servers not tried yet.
	// 0 means 25ms, negative means none.
	Backoff time.Duration
	// MaxBackoff also bounds a Retry-After of a server (RFC 9110, section
	// 10.2.3): a reply that asks for more is passed on. 0 means 10 times
	// Backoff, negative means none: no try is waited for.
	MaxBackoff time.Duration
}

const (
	defaultTries     = 2 // one retry: the limits of the others range from none to three
	defaultBackoff   = 25 * time.Millisecond
	defaultBodyBytes = 64 << 10
)

func (r *Retry) tries() int {
	if r.Tries == 0 {
		return defaultTries
	}
	return max(r.Tries, 1)
}

// maxWait returns the longest wait there may be between two tries.
func (r *Retry) maxWait() time.Duration {
	if r.MaxBackoff != 0 {
		return max(r.MaxBackoff, 0)
	}
	return 10 * min(orDefault(r.Backoff, defaultBackoff), longest/10)
}

// wait returns how long to wait before try number n, n being at least 2;
// random is uniform in [0, 1).
func (r *Retry) wait(n int, random float64) time.Duration {
	bound := orDefault(r.Backoff, defaultBackoff)
	most := min(r.maxWait(), longest)
	for ; n > 2 && bound < most; n-- {
		bound *= 2
	}
	return time.Duration(random * float64(min(bound, most)))
}

// covers reports whether f is a failure to retry for.
func (r *Retry) covers(f *failure) bool {
	switch {
	case f.class == balance.StatusError: // Statuses was asked
		return true
	case r.Classes == nil:
		return f.unsent || f.quiet
	}
	return slices.Contains(r.Classes, f.class)
}

// repeatable reports whether x may be sent twice.
func (r *Retry) repeatable(x *Exchange) bool {
	if r.Repeatable != nil {
		return r.Repeatable(x)
	}
	return idempotent(x.Method)
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// again decides whether a failed try is repeated, and waits until it is time.
func (t *attempt) again(f *failure) bool {
	if !t.mayRepeat(f) {
		return false
	}
	r := &t.p.Retry
	wait := max(r.wait(t.tries+1, t.p.chance.float64(t.p.Seed)), f.after)
	if f.unsent && t.p.Pool.Usable() > t.tries {
		wait = f.after
	}
	if wait > 0 {
		// Whoever waits loads no server: all that a dying server held may wait
		// at once. Only a reply that was given up for it must have its repetition.
		if f.class != balance.StatusError {
			t.giveShare()
		}
		if !t.sleep(wait) {
			return false
		}
	}
	return t.takeShare(f)
}

// mayRepeat reports whether a failed try may be repeated, if the budget allows
// it.
func (t *attempt) mayRepeat(f *failure) bool {
	r := &t.p.Retry
	switch {
	case t.tries >= r.tries() || !r.covers(f) || f.after > r.maxWait():
		return false
	case f.by == l4.ClientAborted || f.by == l4.ClientTimeout || f.by == l4.Denied || f.by == l4.Killed || f.by == l4.Internal:
		return false
	case t.x.Context().Err() != nil || !t.repeatable(f):
		return false
	case !t.deadline.IsZero() && !time.Now().Before(t.deadline):
		return false
	}
	return true
}

// takeShare takes a share of the retry budget, unless there is one already. A
// refused connection, or a refused stream, cost no server any work, so trying elsewhere does not
// multiply load: it is not the budget's business, which would be used up at
// once when a server dies under load.
func (t *attempt) takeShare(f *failure) bool {
	if !t.retry.ok && f.class != balance.ConnectFailed && !f.refused {
		t.retry.RetryPermit, t.retry.ok = t.p.Pool.TryRetry()
		return t.retry.ok
	}
	return true
}

func (t *attempt) giveShare() {
	if t.retry.ok {
		t.retry.Done()
		t.retry.ok = false
	}
}

// sleep waits, and reports false if the client leaves or the time for all is
// over meanwhile.
func (t *attempt) sleep(d time.Duration) bool {
	if !t.deadline.IsZero() && time.Until(t.deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.x.Context().Done():
		return false
	}
}

// repeatable reports whether the request can be sent again after f.
func (t *attempt) repeatable(f *failure) bool {
	return (f.unsent || t.p.Retry.repeatable(t.x)) && t.rewind()
}
