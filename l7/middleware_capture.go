// SPDX-License-Identifier: Apache-2.0

package l7

import "net/http"

// Capture keeps values of fields for the record, as they are at its position:
// request fields before inner handlers rewrite them, and reply fields after
// inner handlers have edited them. Of several lines of one name the last is
// kept.
type Capture struct {
	Request []string // names of request fields
	Reply   []string // names of reply fields

	Max int // bytes kept of a value; 0 means 256

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *Capture) ServeExchange(x *Exchange) {
	h.keep(x, &x.Header, h.Request, false)
	if len(h.Reply) > 0 {
		x.OnReply(h)
	}
	Serve(h.Next, x)
}

// EditReply implements [ReplyEditor].
func (h *Capture) EditReply(x *Exchange, r *Reply) { h.keep(x, &r.Header, h.Reply, true) }

func (h *Capture) keep(x *Exchange, f *Fields, names []string, reply bool) {
	limit := h.Max
	if limit <= 0 {
		limit = 256
	}
	for _, name := range names {
		for i := len(f.list) - 1; i >= 0; i-- {
			if !f.list[i].named(name) {
				continue
			}
			if x.Record.Captured == nil {
				x.Record.Captured = make([]Captured, 0, len(h.Request)+len(h.Reply))
			}
			v := f.list[i].Value
			x.Record.Captured = append(x.Record.Captured, Captured{name, v[:min(limit, len(v))], reply})
			break
		}
	}
}

// ServeHTTP implements [http.Handler].
func (h *Capture) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
