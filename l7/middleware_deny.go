// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// FixedReply answers every request with the same reply.
type FixedReply struct {
	Status int    // 0 means 200
	Header Fields // MakeFields("Content-Type", "text/plain")
	Body   string

	checked
}

// ServeExchange implements [Handler].
func (h *FixedReply) ServeExchange(x *Exchange) {
	f := h.Header.Clone()
	x.Respond(orStatus(h.Status, http.StatusOK), &f, h.Body)
}

// ServeHTTP implements [http.Handler].
func (h *FixedReply) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Deny refuses every request with an error page.
type Deny struct {
	Status int // 0 means 403

	checked
}

// ServeExchange implements [Handler].
func (h *Deny) ServeExchange(x *Exchange) {
	x.Error(orStatus(h.Status, http.StatusForbidden), endOf(l4.Denied, l4.PhaseRequest))
}

// ServeHTTP implements [http.Handler].
func (h *Deny) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Drop closes the client's connection without a reply; on HTTP/2 it resets the
// stream.
type Drop struct{}

// ServeExchange implements [Handler].
func (Drop) ServeExchange(x *Exchange) { x.Drop(endOf(l4.Denied, l4.PhaseRequest)) }

// ServeHTTP implements [http.Handler].
func (h Drop) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// A Tarpit makes clients wait and then refuses them. That costs an attacker
// that waits for replies more than it costs the gateway. A client that
// disconnects frees its place. All routes that use a Tarpit share its places;
// if none is free, a request is refused at once.
type Tarpit struct {
	Delay  time.Duration // 0 means 10s, negative means none
	Status int           // 0 means 500, which does not look deliberate
	Max    int           // exchanges kept waiting at once; 0 means 1000, negative means none

	checked
	held atomic.Int64
}

// ServeExchange implements [Handler].
func (h *Tarpit) ServeExchange(x *Exchange) {
	defer h.held.Add(-1)
	if limit := int64(h.Max); h.held.Add(1) <= limit || limit == 0 && h.held.Load() <= 1000 {
		delay := h.Delay
		if delay == 0 {
			delay = 10 * time.Second
		}
		if pause(x.Context(), delay) != nil {
			x.Drop(endOf(l4.ClientAborted, l4.PhaseRequest))
			return
		}
	}
	x.Error(orStatus(h.Status, http.StatusInternalServerError), endOf(l4.Denied, l4.PhaseRequest))
}

// ServeHTTP implements [http.Handler].
func (h *Tarpit) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Access passes exchanges that Allow matches and Deny does not.
//
//	&l7.Access{Allow: l7.ClientIn{office}, Next: proxy}
type Access struct {
	Allow Matcher // nil allows all
	Deny  Matcher // nil denies none

	Refuse http.Handler // answers the others; nil means status 403
	Next   http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *Access) ServeExchange(x *Exchange) {
	switch {
	case (h.Deny == nil || !Matches(h.Deny, x)) && Matches(h.Allow, x):
		Serve(h.Next, x)
	case h.Refuse != nil:
		Serve(h.Refuse, x)
	default:
		x.Error(http.StatusForbidden, endOf(l4.Denied, l4.PhaseRequest))
	}
}

// ServeHTTP implements [http.Handler].
func (h *Access) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Monitor answers requests for Path itself, for health checks of the gateway:
// 200, or 503 while Fail returns true. The path is compared byte by byte, and
// the query is ignored.
type Monitor struct {
	Path string      // "" answers nothing
	Fail func() bool // nil never fails

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *Monitor) ServeExchange(x *Exchange) {
	switch {
	case h.Path == "" || x.Path != h.Path:
		Serve(h.Next, x)
	case h.Fail != nil && h.Fail():
		x.Error(http.StatusServiceUnavailable, endOf(l4.Local, l4.PhaseRequest))
	default:
		f := MakeFields("Content-Type", "text/plain; charset=utf-8", "Cache-Control", "no-store")
		x.Respond(http.StatusOK, &f, "OK\n")
	}
}

// ServeHTTP implements [http.Handler].
func (h *Monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// ErrorPages replaces the bodies of error replies that the gateway itself
// makes. Replies of servers are not changed.
type ErrorPages struct {
	// Pages has a page for each status; 0 is for all others. The status of a page
	// is not used: the error keeps its own. A page without header and body closes
	// the connection instead.
	Pages map[int]FixedReply

	// Make makes a page, or returns nil to use that of Pages. Err is the error, nil
	// if a handler decided to refuse; x.Record.Termination has the cause and the
	// phase. If the page has a Status, it replaces that of the error. Make may be
	// called by several goroutines at once.
	Make func(x *Exchange, status int, err error) *FixedReply

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *ErrorPages) ServeExchange(x *Exchange) {
	x.ErrorPage = h.page
	Serve(h.Next, x)
}

func (h *ErrorPages) page(x *Exchange, status int) (*Fields, string) {
	p, ok := h.Pages[status]
	if !ok {
		p, ok = h.Pages[0]
	}
	if h.Make != nil {
		if made := h.Make(x, status, x.Record.Err); made != nil {
			if p, ok = *made, true; p.Status != 0 {
				x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Status = made.Status }))
			}
		}
	}
	if !ok {
		f := MakeFields("Content-Type", "text/plain; charset=utf-8")
		return &f, statusLine(status) + "\n"
	}
	if p.Header.Len() == 0 && p.Body == "" {
		x.Drop(x.Record.Termination)
	}
	f := p.Header.Clone()
	return &f, p.Body
}

// ServeHTTP implements [http.Handler].
func (h *ErrorPages) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

func orStatus(status, def int) int {
	if status == 0 {
		return def
	}
	return status
}
