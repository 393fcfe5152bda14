// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A KeyLimiter limits by key: a *ratelimit.Keyed[K] or *ratelimit.Shared[K].
// Take may be called by several goroutines at once and should not block for
// long.
type KeyLimiter[K comparable] interface {
	Take(key K, n int) ratelimit.Decision
	Refund(key K, d ratelimit.Decision)
}

// A Limit asks a limiter before each exchange. A refused exchange is answered
// 429 with a Retry-After. Where the limiter asks for a wait, the exchange waits.
//
//	&l7.Limit[netip.Addr]{
//		Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(10)}},
//		Next:    proxy,
//	}
//
// The tokens are refunded if the exchange failed before it reached a server and
// neither the client nor a rule was the cause. Under ratelimit.InFlight they are
// always refunded at the end.
type Limit[K comparable] struct {
	Limiter KeyLimiter[K]

	// Key returns the key of an exchange. An exchange without a key passes; to refuse
	// it, put an [Access] before the Limit (see the example by API key). Each key has
	// tokens of its own, so a client that makes keys up is not limited: what it sends
	// must be verified before the Limit. Nil means the
	// client: its IPv4 address, or the first address of its IPv6 /64, and K must be
	// netip.Addr. [ByClient] tells IPv6 addresses apart.
	Key func(x *Exchange) (key K, ok bool)

	Cost func(x *Exchange) int // nil means 1; an exchange of cost 0 passes

	// Refuse answers refused exchanges; nil means status 429. Retry-After is set
	// on its reply too.
	Refuse http.Handler

	// Policy is the name of the policy in the RateLimit and RateLimit-Policy fields
	// that are added to every reply (draft-ietf-httpapi-ratelimit-headers-10). Empty
	// adds none.
	Policy string
	Window time.Duration // of the policy, sent in RateLimit-Policy; 0 sends none

	// OnOver is called for each exchange over the limit, also for those that pass
	// because the limiter only counts. It must not block.
	OnOver func(x *Exchange, key K, d ratelimit.Decision)

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (l *Limit[K]) ServeExchange(x *Exchange) {
	key, ok := l.key(x)
	if !ok {
		Serve(l.Next, x)
		return
	}
	cost := 1
	if l.Cost != nil {
		cost = max(0, l.Cost(x))
	}
	var d ratelimit.Decision
	if keyed, ok := l.Limiter.(*ratelimit.Keyed[K]); ok {
		keyed.TakeTo(&d, key, cost)
	} else {
		d = l.Limiter.Take(key, cost)
	}
	if d.Over && l.OnOver != nil {
		l.OnOver(x, key, d)
	}
	if !d.OK {
		if l.Policy != "" {
			x.OnReply(&limited[K]{Limit: l, key: key})
		}
		l.refuse(x, d)
		return
	}
	if d.Wait > 0 && pause(x.Context(), d.Wait) != nil {
		l.Limiter.Refund(key, d)
		x.Drop(endOf(l4.ClientAborted, l4.PhaseQueue))
		return
	}
	if d.Reset == ratelimit.Never {
		if l.Policy != "" {
			x.OnReply(&limited[K]{Limit: l, key: key})
		}
		l.inFlight(x, key, d)
		return
	}
	charged := &limited[K]{l, key, d, true}
	x.OnReply(charged)
	Serve(l.Next, x)
	charged.settle(x)
}

// inFlight serves x and refunds what it took at the end, also if a handler panics.
func (l *Limit[K]) inFlight(x *Exchange, key K, d ratelimit.Decision) {
	defer l.Limiter.Refund(key, d)
	Serve(l.Next, x)
}

func (l *Limit[K]) key(x *Exchange) (K, bool) {
	if l.Key != nil {
		return l.Key(x)
	}
	addr, ok := byNetwork(x)
	key, is := any(addr).(K)
	if !is {
		panic("l7: Limit without a Key needs keys of type netip.Addr")
	}
	return key, ok
}

// unserved reports whether neither the client nor a rule ended an exchange.
func unserved(t l4.Termination) bool {
	switch t.Cause {
	case l4.ServerAborted, l4.ServerTimeout, l4.Resource, l4.Internal, l4.ServerDown, l4.Killed:
		return true
	}
	return false
}

func (l *Limit[K]) refuse(x *Exchange, d ratelimit.Decision) {
	if s := d.RetryAfter(); s > 0 {
		x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Header.Set("Retry-After", strconv.Itoa(s)) }))
	}
	if l.Refuse != nil {
		Serve(l.Refuse, x)
		return
	}
	x.Error(http.StatusTooManyRequests, endOf(l4.Denied, l4.PhaseRequest))
}

// limited is the state of a limit for one exchange. It keeps the key, since inner
// handlers may change the fields that Key reads.
type limited[K comparable] struct {
	*Limit[K]
	key     K
	taken   ratelimit.Decision
	charged bool // taken may still have to be refunded
}

// settle refunds an exchange that failed before it reached a server.
func (l *limited[K]) settle(x *Exchange) {
	if l.charged && x.Record.Tries == 0 && unserved(x.Record.Termination) {
		l.charged = false
		l.Limiter.Refund(l.key, l.taken)
	}
}

// EditReply implements [ReplyEditor]. It refunds before the client has the reply, since
// the client may ask again at once, and adds the RateLimit fields.
func (l *limited[K]) EditReply(x *Exchange, r *Reply) {
	l.settle(x)
	if l.Policy == "" {
		return
	}
	d := l.Limiter.Take(l.key, 0)
	var buf [64]byte
	r.Header.Set("RateLimit", string(d.AppendRateLimit(buf[:0], l.Policy)))
	r.Header.Set("RateLimit-Policy", string(d.AppendPolicy(buf[:0], l.Policy, l.Window)))
}

// ServeHTTP implements [http.Handler].
func (l *Limit[K]) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(l, w, r) }

// pause waits for d. If ctx ends first, it returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var _ KeyLimiter[netip.Addr] = (*ratelimit.Keyed[netip.Addr])(nil)
