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

// Places is a limit of concurrent exchanges: a *ratelimit.Concurrency or
// *ratelimit.Adaptive; or a *ratelimit.Shedder, which sheds load.
type Places interface {
	TryAcquire() bool
	Acquire(ctx context.Context) error
	Release(took time.Duration)
}

// A Gate lets as many exchanges through at once as there are places. Others
// wait as long as the places allow. Refused ones get 503 with Retry-After: 1.
//
// One Gate for each part of a service is a bulkhead: a part that hangs fills its own
// places and no others. A [Limit] with ratelimit.InFlight is one for each key.
type Gate struct {
	Places Places

	// Refuse answers refused exchanges; nil means status 503. Retry-After is set
	// on its reply too.
	Refuse http.Handler

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (g *Gate) ServeExchange(x *Exchange) {
	if !g.Places.TryAcquire() {
		if _, once := g.Places.(*ratelimit.Shedder); once { // it is asked once, as each answer is a draw
			g.refuse(x, ratelimit.ErrRefused)
			return
		}
		if err := g.Places.Acquire(x.Context()); err != nil {
			g.refuse(x, err)
			return
		}
	}
	var start time.Duration // since the start of the exchange: half the cost of time.Now
	timeless := false       // it does not need the time
	switch g.Places.(type) {
	case *ratelimit.Concurrency, *ratelimit.Shedder:
		timeless = true
	}
	if !timeless {
		start = time.Since(x.Record.Start)
	}
	served := false
	defer func() { // also if a handler panics
		took := time.Duration(-1) // not a measurement of the servers
		if served && !timeless && x.Record.Tries > 0 && x.upgrade == "" && x.Record.Termination.Cause != l4.ClientAborted {
			took = time.Since(x.Record.Start) - start
		}
		g.Places.Release(took)
	}()
	Serve(g.Next, x)
	served = true
}

func (g *Gate) refuse(x *Exchange, err error) {
	if !errors.Is(err, ratelimit.ErrRefused) { // the client has disconnected
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
