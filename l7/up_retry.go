// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// Retry says when a failed request is tried again, on another server if there
// is one. A retry also needs room in the pool's retry budget, unless no
// connection could be made (balance.ConnectFailed) or an HTTP/2 server says
// that it has not processed the request. And it needs a request that can be
// repeated: either no part of it has reached a server, or it may be sent twice
// and its body, if any, has been kept.
//
// A reused connection that was already closed is not a failure: if the request
// may be sent twice, it is sent again over a new connection to the same server.
//
// Once the head of a reply has come there is no other try, but for one of Statuses: what
// breaks off or stalls after it is not tried again, held back by [BufferReply] or not.
type Retry struct {
	Tries int // in all, including the first; 0 means 2, negative means none but the first

	// Classes lists the failures to retry. A list replaces the default and is not added
	// to it; to add a class:
	//
	//	Classes: append(l7.DefaultRetryClasses(), balance.Timeout)
	//
	// Nil means failures before anything reached the server, and connections that ended
	// without a byte of a reply. Neither nil nor DefaultRetryClasses has balance.Timeout,
	// since a server that is slow would get the same work twice, nor balance.Protocol.
	// A server that goes down or is cut while it is connected to counts as
	// balance.ConnectFailed, and so does a connection for which this machine lacks a
	// resource, such as a port. Replies are listed in Statuses: balance.StatusError may
	// not be among the classes.
	Classes []balance.Class
	// Statuses lists the statuses to retry; empty means none. After the last try such a reply is
	// relayed. A gRPC call that ends without a message has the status that stands for
	// its grpc-status: UNAVAILABLE 503, DEADLINE_EXCEEDED 504, UNKNOWN, INTERNAL and
	// DATA_LOSS 500, UNIMPLEMENTED 501; other codes are not retried.
	Statuses []int
	// Repeatable reports whether a request may be sent twice; nil means those
	// whose method is idempotent (RFC 9110, section 9.2.2). Calls of gRPC are POST:
	// the func names the ones that may.
	Repeatable func(x *Exchange) bool

	// BodyBytes is how much of a request body is kept, while it is sent, so that it
	// can be sent again; 0 means 64 KiB, negative means none beyond what came with
	// the head. A request with a longer body is sent but not retried, unless it is
	// a Transport's request with GetBody.
	BodyBytes int

	// Backoff bounds the wait before the second try. The bound doubles with each
	// further try up to MaxBackoff, and the wait is uniform between 0 and the
	// bound (full jitter). A request that did not reach its server is retried
	// without a wait while there are untried servers. 0 means 25ms, negative means
	// none.
	Backoff time.Duration
	// MaxBackoff also bounds a Retry-After of a server (RFC 9110, section 10.2.3):
	// a reply that asks for a longer wait is relayed. 0 means 10 times Backoff,
	// negative means none: tries never wait.
	MaxBackoff time.Duration
}

// DefaultRetryClasses returns a new list of the failures that a nil Retry.Classes retries:
// ConnectFailed, ConnectTimeout, TLSFailed, Reset and Stale. As a list they also cover a
// connection that ended within the head of a reply, which is balance.Reset too, and which
// nil does not retry.
func DefaultRetryClasses() []balance.Class {
	return []balance.Class{balance.ConnectFailed, balance.ConnectTimeout, balance.TLSFailed, balance.Reset, balance.Stale}
}

const (
	defaultTries     = 2 // one retry: the defaults of other proxies range from none to three
	defaultBackoff   = 25 * time.Millisecond
	defaultBodyBytes = 64 << 10
)

func (r *Retry) tries() int {
	if r.Tries == 0 {
		return defaultTries
	}
	return max(r.Tries, 1)
}

// maxWait returns the longest wait between two tries.
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
	case f.class == balance.StatusError: // already decided by Statuses
		return true
	case r.Classes == nil:
		return f.unsent || f.quiet
	case f.unsent && f.class == balance.Canceled: // no class of the server's, yet there was no connection
		return slices.Contains(r.Classes, balance.ConnectFailed)
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

// surelyRepeatable is repeatable without asking the host.
func (r *Retry) surelyRepeatable(x *Exchange) bool {
	return r.Repeatable == nil && idempotent(x.Method)
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// again decides whether a failed try is repeated, and waits for the backoff.
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
		// A waiting request puts no load on a server: all requests of a dying server
		// may wait at once. So the share is returned during the wait, except if a
		// reply was discarded: that request must be repeated.
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

// takeShare takes a share of the retry budget, unless this request has one already. A refused
// connection, or a refused stream, cost no server any work, so another try does not multiply
// load and needs no share. The budget would be used up at once when a server dies under load.
func (t *attempt) takeShare(f *failure) bool {
	if !t.retry.ok && f.class != balance.ConnectFailed && !f.cutConnecting() && !f.refused {
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

// sleep waits. It is false if the client disconnects or Timeout passes
// meanwhile.
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
