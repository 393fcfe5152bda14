// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// Fault makes some requests slow, or fail, on purpose, so that one sees what clients and
// servers make of that. It delays first, and then aborts, answers with Status, or lets
// the request go on. [Record.Decision] says what was done; what is answered ends with the
// cause l4.Local, and counts for no server.
//
// All Fault handlers of a program are switched off in one place if they share Active:
//
//	var faults atomic.Bool
//	&l7.Fault{Active: faults.Load, Match: l7.Header{Name: "X-Test"}, Share: 0.1, Status: 503, Next: proxy}
type Fault struct {
	Match  Matcher     // requests that are meant, by route, field or anything else; nil means all
	Share  float64     // of these, at random; 0 means all
	Seed   uint64      // of that; 0 means at random
	Active func() bool // asked for each request; false lets it pass untouched; nil means always

	Delay  time.Duration // before anything else; 0 or negative means none
	Abort  bool          // closes the connection, or resets the stream, without a reply
	Status int           // of an error that is answered; 0 means that the request goes on

	MaxDelayed int // exchanges that wait at once, others go on without a delay; 0 means 1000, negative means no limit

	Next http.Handler

	checked
	chance  chance
	delayed atomic.Int64
}

// ServeExchange implements [Handler].
func (h *Fault) ServeExchange(x *Exchange) {
	if h.Active != nil && !h.Active() || !Matches(h.Match, x) || h.Share > 0 && h.chance.float64(h.Seed) >= h.Share {
		Serve(h.Next, x)
		return
	}
	if h.Delay > 0 && !h.delay(x) {
		x.Drop(endOf(l4.ClientAborted, l4.PhaseRequest))
		return
	}
	switch {
	case h.Abort:
		x.Record.Decide("Fault: aborted")
		x.Drop(endOf(l4.Local, l4.PhaseRequest))
	case h.Status != 0:
		x.Record.Decide("Fault: answered")
		x.Error(h.Status, endOf(l4.Local, l4.PhaseRequest))
	default:
		Serve(h.Next, x)
	}
}

// delay waits, and reports whether the client has as well.
func (h *Fault) delay(x *Exchange) bool {
	defer h.delayed.Add(-1)
	if limit := int64(orDefault(h.MaxDelayed, 1000)); h.delayed.Add(1) > limit && limit > 0 {
		x.Record.Decide("Fault: too many wait")
		return true
	}
	x.Record.Decide("Fault: delayed")
	return pause(x.Context(), h.Delay) == nil
}

// ServeHTTP implements [http.Handler].
func (h *Fault) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Check returns what is wrong with h, its matcher and its handler.
func (h *Fault) Check() error { return checkAll(h) }

func (h *Fault) check(c *checks) {
	c.matcher("Fault.Match", h.Match)
	c.If(!(h.Share >= 0 && h.Share <= 1), "Fault.Share", h.Share, "must be a share, from 0 to 1")
	c.status("Fault.Status", h.Status)
	c.If(h.Abort && h.Status != 0, "Fault.Status", h.Status, "must be left out with Abort")
	c.If(!h.Abort && h.Status == 0 && h.Delay <= 0, "Fault.Status", h.Status, "must be set, or Abort or Delay: this does nothing")
	c.next("Fault.Next", h.Next)
}
