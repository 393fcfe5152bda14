// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"net/http"
	"slices"

	"github.com/penstock-lb/penstock/l4"
)

// A through is the front for a native handler inside a foreign one that only
// looked at the request and set fields of the reply: the exchange continues as if
// the foreign handler were not there. The foreign handler's fields are added to
// the head of the reply and its context is used. The end of a reply of unknown
// length waits until the foreign handler has returned, since it may still write.
type through struct {
	ownFront
	x    *Exchange
	lent *carried // to the foreign handler
	ctx  context.Context
	h    http.Header // header of the foreign handler's writer
	open bool        // the end of the reply is postponed
	over bool        // except for its end, the reply is written

	bypassed bool // a handler inside replies by the writer of the foreign handler

	behind *Fields // the trailer of the reply, until its end
}

func (t *through) context() context.Context { return t.ctx }

func (t *through) endedByHandler() bool {
	return t.ownFront.endedByHandler() || t.ownFront.context().Err() == nil
}

func (t *through) request() *http.Request { return t.ownFront.request().WithContext(t.ctx) }

func (t *through) ownRequest(r *http.Request, ctx *requestContext) {
	t.ownFront.ownRequest(r, ctx)
	*r = *r.WithContext(t.ctx)
}

func (t *through) readBody(p []byte) (int, error) {
	defer t.readAlone()()
	n, err := t.ownFront.readBody(p)
	t.x.Record.BytesIn += int64(n)
	return n, err
}

func (t *through) bodyReady() bool {
	defer t.readAlone()()
	return t.ownFront.bodyReady()
}

// readAlone keeps the foreign handler from reading the body until the result is called: a
// goroutine of it may do so at the same time.
func (t *through) readAlone() (end func()) {
	b, ok := t.lent.s.r.Body.(*ownBody)
	if !ok {
		return func() {}
	}
	b.turn <- struct{}{}
	return func() { <-b.turn }
}

func (t *through) serveForeign(h http.Handler, _ wrapping) { serveOwn(t.x, t, h) }

// EditReply adds the fields that the foreign handler has set.
func (t *through) EditReply(x *Exchange, r *Reply) {
	if saysClose(t.h) {
		t.lastReply()
	}
	n := len(r.Header.list)
	r.Header.list = appendOwnFields(r.Header.list, t.h)
	r.Header.edited = r.Header.edited || len(r.Header.list) > n
}

func (t *through) writeHead(r *Reply) error {
	if t.bypassed {
		return nil
	}
	t.open = r.ContentLength < 0 && !t.x.bodiless(r.Status)
	return t.ownFront.writeHead(r)
}

func (t *through) writeBody(p []byte) error {
	if t.bypassed {
		return nil
	}
	return t.ownFront.writeBody(p)
}

func (t *through) finish(trailer *Fields) error {
	if t.bypassed {
		return nil
	}
	if !t.open {
		return t.ownFront.finish(trailer)
	}
	if t.over = true; trailer != nil {
		behind := trailer.Clone()
		t.behind = &behind
	}
	return nil
}

func (t *through) abort() {
	t.open = false
	t.ownFront.abort()
}

// end ends a reply whose end was postponed.
func (t *through) end() {
	if !t.open {
		return
	}
	if !t.over { // the handler inside has not finished it
		t.ownFront.abort()
		return
	}
	own := trailersOf(t.h, t.h)
	if t.behind != nil {
		own.list = append(t.behind.list, own.list...)
	}
	_ = t.ownFront.finish(&own)
}

// write writes to a reply whose end was postponed, for the foreign handler.
func (t *through) write(p []byte) (int, error) {
	if !t.open || !t.over {
		if t.x.asked.method == http.MethodHead {
			return len(p), nil
		}
		return 0, http.ErrContentLength
	}
	if err := t.ownFront.writeBody(p); err != nil {
		return 0, err
	}
	t.x.Record.BytesOut += int64(len(p))
	return len(p), nil
}

// goThrough continues the exchange natively with h, if possible: the foreign
// handler has passed on this same writer unused, and has changed only the target,
// the Host and the context values of the request.
func (w *editingWriter) goThrough(h Handler, r *http.Request) bool {
	s, l := w.s, w.lent
	if s.under == nil || !l.enterAlone() {
		return false
	}
	if w.wrote || w.held != nil || w.hijacked || !s.fits(l, r) {
		l.leave()
		return false
	}
	x := s.x
	t := &l.through
	*t = through{}
	t.ownFront, t.x, t.lent, t.ctx, t.h = s.under, x, l, r.Context(), w.ResponseWriter.Header()
	s.through = t
	x.down, x.Record.Front = t, s.front
	editors := len(x.editors)
	if len(t.h) > 0 {
		x.editors = append(x.editors, t)
	}
	clean := false
	defer func() {
		x.down = s
		if t.bypassed {
			s.through = nil
		} else if w.wrote = x.replied; !x.replied { // after a panic, the foreign handler may reply
			x.editors, s.through, x.Record.Front = slices.Delete(x.editors, min(editors, len(x.editors)), len(x.editors)), nil, FrontStandard
		}
		if !clean {
			x.Record.Termination = endOf(l4.Internal, l4.PhaseRequest)
		}
		s.begun = x.replied
		l.forget()
		l.leave()
	}()
	if err := firstUse(h); err != nil {
		x.misconfigured(err)
	} else {
		Serve(h, x)
		x.mustReply()
	}
	clean = true
	return true
}

// fits reports whether the exchange can continue with r as it is, and takes
// over the target and Host of r.
func (s *standard) fits(l *carried, r *http.Request) bool {
	x := s.x
	if ctx := r.Context(); ctx != context.Context(&l.ctx) {
		if c, ok := ctx.Value(carriedKey{}).(*carried); !ok || c != l || ctx.Done() != l.ctx.Done() {
			return false
		}
	}
	if r.Method != x.Method || r.Body != l.body || r.ContentLength != l.length || r.URL == nil {
		return false
	}
	if b, ok := l.body.(*carriedBody); ok && !b.untouched() {
		return false
	}
	if !l.sameConnection(r.Header["Connection"]) || !sameHeader(&x.Header, r.Header) {
		return false
	}
	path, query := x.Path, x.Query
	if l.retarget(x, r) != nil || !l.sameHost(r.Host) && !validHost(r.Host) {
		x.Path, x.Query = path, query
		return false
	}
	x.Host = r.Host
	return true
}

// sameHeader reports whether a map has the lines of f and, apart from connection
// fields, no others.
func sameHeader(f *Fields, h http.Header) bool {
	n := 0
	for name, values := range h {
		if k := kindOf(name); !k.owned() && k != kindTrailer {
			n += len(values)
		}
	}
	var seen uint64 // lengths of names, so that few are compared with those before
	for i := range f.list {
		fd := &f.list[i]
		if fd.kind.owned() || fd.kind == kindTrailer {
			continue
		}
		at, length := 0, uint64(1)<<(len(fd.Name)&63)
		if seen&length != 0 {
			for j := range i {
				if f.list[j].named(fd.Name) {
					at++
				}
			}
		}
		seen |= length
		if values := h[http.CanonicalHeaderKey(fd.Name)]; at >= len(values) || values[at] != fd.Value {
			return false
		}
		n--
	}
	return n == 0
}
