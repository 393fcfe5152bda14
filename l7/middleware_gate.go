// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/ratelimit"
)

// Places are a number of exchanges at once: a *ratelimit.Concurrency or
// *ratelimit.Adaptive.
type Places interface {
	TryAcquire() bool
	Acquire(ctx context.Context) error
	Release(took time.Duration)
}

// A Gate lets as many exchanges through at once as there are places, and has
// the others wait as long as the places allow. Who is turned away gets 503
// with Retry-After: 1.
type Gate struct {
	Places Places

	// Refuse answers those turned away, with a Retry-After in any case; nil
	// means status 503.
	Refuse http.Handler

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (g *Gate) ServeExchange(x *Exchange) {
	if !g.Places.TryAcquire() {
		if err := g.Places.Acquire(x.Context()); err != nil {
			g.refuse(x, err)
			return
		}
	}
	var start time.Duration                          // since the start of the exchange: half the price of time.Now
	_, timeless := g.Places.(*ratelimit.Concurrency) // to which a look at the clock would be all the price
	if !timeless {
		start = time.Since(x.Record.Start)
	}
	served := false
	defer func() { // a handler that panics gives its place back too
		took := time.Duration(-1) // says nothing of the servers
		if served && !timeless && x.Record.Tries > 0 && x.upgrade == "" && x.Record.Termination.Cause != l4.ClientAborted {
			took = time.Since(x.Record.Start) - start
		}
		g.Places.Release(took)
	}()
	Serve(g.Next, x)
	served = true
}

func (g *Gate) refuse(x *Exchange, err error) {
	if !errors.Is(err, ratelimit.ErrRefused) { // the client is gone
		x.Drop(endOf(l4.ClientAborted, l4.PhaseQueue))
		return
	}
	x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Header.Set("Retry-After", "1") }))
	if g.Refuse != nil {
		Serve(g.Refuse, x)
		return
	}
	x.Error(http.StatusServiceUnavailable, endOf(l4.Resource, l4.PhaseQueue))
}

// ServeHTTP implements [http.Handler].
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(g, w, r) }
