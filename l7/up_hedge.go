// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// Hedge says when a request without a reply is sent to a second server as well.
// The first reply is used, and the other try is canceled. A hedge needs a share
// of the pool's retry budget, and a request that may be sent twice
// ([Retry.Repeatable]) and has no body, or a small one that came with the head.
// Interim replies are not relayed for such requests. (gRPC proposal A6; "The
// Tail at Scale", Dean and Barroso, 2013.)
type Hedge struct {
	// Delay is how long to wait for a reply before hedging. 0 means that Quantile
	// decides.
	Delay time.Duration
	// Quantile, such as 0.95, hedges after that quantile of recent reply times,
	// but not before Delay. Until there have been 100 replies only Delay is used,
	// and without one there is no hedging. 0 means Delay only. At 0.95, one
	// request in twenty is sent twice.
	Quantile float64
}

func (h *Hedge) enabled() bool { return h.Delay > 0 || h.Quantile > 0 }

// after returns how long to wait for a reply; false means that there is no hedging.
func (h *Hedge) after(known *latencies) (time.Duration, bool) {
	d := h.Delay
	if h.Quantile > 0 {
		if q, ok := known.quantile(); ok {
			d = max(d, q)
		}
	}
	return d, d > 0
}

// hedgeable reports whether the request may go to two servers at once.
func (t *attempt) hedgeable() bool {
	return t.whole && !t.forceOne && t.p.Retry.repeatable(t.x)
}

// A race is two tries of one request. The first runs in the goroutine of the
// exchange, and the second, if there is one, in a goroutine that the exchange
// waits for.
type race struct {
	t      attempt // a copy; both tries only read it
	req    balance.Request
	tries  [2]try
	cancel [2]context.CancelFunc

	mu     sync.Mutex
	srcs   [2]source // to be interrupted
	winner *try
	left   bool // the client has disconnected

	done chan struct{} // closed when the second try has ended
	fail *failure      // of the second try; read after done is closed
}

var errRaceLost = errors.New("l7: another server was faster")

// raceTries is open with a hedge. The try that wins goes into t.try; the lease
// of the other one is ended.
func (t *attempt) raceTries(ctx context.Context) *failure {
	delay, ok := t.p.Hedge.after(t.p.latencies)
	start := time.Now()
	if !ok {
		f := t.open(ctx, &t.try)
		t.p.latencies.note(f, time.Since(start))
		return f
	}
	r := &race{t: *t, req: t.x.Balance, done: make(chan struct{})}
	r.tries[0] = try{lease: t.try.lease, race: r}
	r.req.Avoid(t.try.lease.Server())
	var first context.Context
	ctx = lasting(ctx)
	first, r.cancel[0] = context.WithCancel(ctx)
	hedge, cancel := context.WithCancel(ctx)
	r.cancel[1] = cancel
	defer r.cancel[0]()
	defer cancel()
	t.x.down.attach(r)
	timer := time.AfterFunc(delay, func() { r.runSecond(hedge) })
	var fail *failure
	err := guard(t.x, "try", func() error {
		if fail = r.t.open(first, &r.tries[0]); fail == nil {
			r.win(&r.tries[0])
		}
		return nil
	})
	if err != nil {
		fail = r.panicked(&r.tries[0], err)
	}
	if !timer.Stop() {
		<-r.done
	}
	f := r.settle(t, fail)
	t.p.latencies.note(f, time.Since(start))
	if f == nil && t.try.src != nil {
		// The first reply wins. Whether it is to be retried is decided only now, when
		// the other try no longer uses the request.
		if f = t.badStatus(&t.try, t.try.src); f != nil {
			t.x.hedged = ""
		}
	}
	return f
}

// runSecond is the second try.
func (r *race) runSecond(ctx context.Context) {
	defer close(r.done)
	if err := guard(r.t.x, "try", func() error { r.second(ctx); return nil }); err != nil {
		r.fail = r.panicked(&r.tries[1], err)
	}
}

func (r *race) second(ctx context.Context) {
	if r.over() {
		return
	}
	share, ok := r.t.p.Pool.TryHedge()
	if !ok {
		return
	}
	defer share.Done()
	lease, err := r.t.p.Pool.Acquire(ctx, r.req)
	if err != nil {
		return
	}
	l := &r.tries[1]
	l.lease, l.race = lease, r
	if lease.Server() == r.tries[0].lease.Server() { // there is no other server
		lease.Done(balance.Outcome{Class: balance.Canceled})
		l.lease = balance.Lease{}
		return
	}
	if r.fail = r.t.open(ctx, l); r.fail == nil {
		r.win(l)
	}
}

// panicked returns the failure of a try in which host code panicked.
func (r *race) panicked(l *try, err error) *failure {
	r.drop(l)
	if l.src != nil {
		l.src.close()
		l.src = nil
	}
	f := &failure{phase: l4.PhaseConnect, err: err}
	f.panicked()
	return f
}

// over reports whether the race is decided.
func (r *race) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.winner != nil || r.left
}

// hold registers the source of a try to be interrupted; false means that the
// race is over.
func (r *race) hold(l *try, src source) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.winner != nil || r.left {
		return false
	}
	r.srcs[r.index(l)] = src
	return true
}

func (r *race) drop(l *try) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.srcs[r.index(l)] = nil
}

func (r *race) index(l *try) int {
	if l == &r.tries[0] {
		return 0
	}
	return 1
}

// lost reports whether the other try has won.
func (r *race) lost(l *try) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.winner != nil && r.winner != l
}

// win makes l the winner unless there is one, and interrupts the other try.
func (r *race) win(l *try) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.winner != nil {
		return
	}
	r.winner = l
	other := 1 - r.index(l)
	r.cancel[other]()
	if src := r.srcs[other]; src != nil {
		src.interrupt()
	}
}

// interrupt ends both tries, since the client has disconnected.
func (r *race) interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	r.cancel[0]()
	r.cancel[1]()
	for _, src := range r.srcs {
		if src != nil {
			src.interrupt()
		}
	}
}

// interrupted reports whether the client has disconnected.
func (r *race) interrupted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

// settle ends the race after both tries have ended. Fail is the failure of the
// first one.
func (r *race) settle(t *attempt, fail *failure) *failure {
	second := &r.tries[1]
	ran := second.lease.Server() != nil
	if ran {
		t.x.Record.Tries++
		t.tries++
	}
	switch {
	case r.winner == nil:
		if ran {
			f := r.fail
			t.x.Balance.Avoid(second.lease.Server())
			second.done(balance.Outcome{Class: f.class, Err: f.err, Status: f.status})
		}
		t.try = r.tries[0]
	case r.winner == second:
		t.x.hedged = r.tries[0].lease.Server().Name()
		r.tries[0].lose(&r.t, fail)
		t.try, fail = *second, nil
	default:
		if ran {
			second.lose(&r.t, r.fail)
		}
		t.try = r.tries[0]
	}
	t.try.race, t.try.raced = nil, true
	untouched := t.x.down.detach()
	if fail == nil && t.try.src != nil {
		t.x.down.attach(t.try.src)
		if !untouched || r.interrupted() {
			t.try.src.interrupt()
		}
	}
	return fail
}

// lose releases the slower try.
func (l *try) lose(t *attempt, f *failure) {
	o := l.outcome
	switch {
	case f == nil: // it also has a reply
		if l.src != nil {
			l.src.stopSending(t, false)
			l.src.close()
		}
	case f.class.ServerFault() && f.err != errRaceLost:
		o = balance.Outcome{Class: f.class, Err: f.err, Status: f.status}
	default:
		o = balance.Outcome{Class: balance.ClientAborted, Err: errRaceLost}
	}
	if l.seen != nil {
		l.seen.Lost = f == nil || o.Err == errRaceLost
	}
	l.done(o)
}
