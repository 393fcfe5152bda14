// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// serveInside calls h with the exchange that the foreign handler around it has
// received.
func (s *standard) serveInside(h Handler) {
	x, l := s.x, s.lent
	clean := false
	defer func() {
		late := l.over()
		cut := s.aborted && clean || !clean && s.cutInside
		if !clean {
			// The foreign handler may want to recover the panic itself, if it has not
			// returned.
			if !cut {
				x.Record.Termination = endOf(l4.Internal, l4.PhaseRequest)
			}
			if late {
				if p := recover(); p != nil {
					recovered(s.logger(), p, "handler", "path", x.Path)
				}
			}
		}
		if cut {
			l.cutReply()
		}
		l.tell(x, nil)
		if s.aborted && clean && !late && !l.isRefused() {
			panic(http.ErrAbortHandler)
		}
	}()
	if err := s.resume(); err != nil {
		x.Record.Err = err
		x.Error(err.status, endOf(l4.Denied, l4.PhaseRequest))
	} else if err := firstUse(h); err != nil {
		x.misconfigured(err)
	} else {
		Serve(h, x)
		x.mustReply()
	}
	clean = true
}

// resume fills the exchange from the lent one, with the changes that the
// foreign handler has made in the request.
func (s *standard) resume() *headError {
	x, l, r := s.x, s.lent, s.r
	l.from.begin(x)
	x.down = s
	if !isToken(r.Method) {
		return bad("malformed method")
	}
	// The reply belongs to the request that the foreign handler made, so that
	// request's method decides the framing.
	x.Method, x.asked.method = r.Method, r.Method
	if err := l.retarget(x, r); err != nil {
		return err
	}
	if x.Host = r.Host; !l.sameHost(r.Host) && !validHost(r.Host) && (r.Host != "" || x.proto != 0) {
		return bad("malformed Host")
	}
	x.ContentLength = r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		x.ContentLength = 0
	}
	if b, ok := l.body.(*carriedBody); !ok || r.Body != l.body || r.ContentLength != l.length || !b.untouched() {
		x.buffered = nil
	}
	err := s.parseHeader()
	s.ownEdits()
	return err
}

// ownEdits marks as owned by the gateway the names of fields that a foreign handler has changed.
func (s *standard) ownEdits() {
	l := s.lent
	header := &s.x.Header
	header.own = l.from.own()
	if s.x.ContentLength == 0 || !l.enter() { // there is no trailer without a body
		return
	}
	defer l.leave()
	outer := make(http.Header)
	addFields(outer, &l.s.x.Header)
	for name, values := range s.r.Header {
		if k := kindOf(name); !k.owned() && !slices.Equal(outer[name], values) {
			header.ownField(name)
		}
	}
	for name := range outer {
		if _, ok := s.r.Header[name]; !ok {
			header.ownField(name)
		}
	}
}

// retarget sets the target of x to that of r, which the foreign handler has changed.
func (l *carried) retarget(x *Exchange, r *http.Request) *headError {
	if l.sameURL(r.URL) {
		return nil
	}
	target := r.URL.RequestURI()
	if !l.sameTarget(r.RequestURI) { // both have been changed
		target = requestTarget(r)
	}
	return x.setTarget(target)
}

var errNoHijack = errors.New("l7: no upgrade: the ResponseWriter of an outer handler cannot be hijacked")

// hijackable reports whether the connection can be hijacked through w.
func hijackable(w http.ResponseWriter) bool {
	for range 16 {
		if e, ok := w.(*editingWriter); ok {
			w = e.ResponseWriter
			continue
		}
		if o, ok := w.(*ownWriter); ok {
			return o.under.mayHijack()
		}
		if _, ok := w.(http.Hijacker); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
	return false
}

// root returns the outermost one, which is not inside a foreign handler.
func (s *standard) root() *standard {
	for s.lent != nil {
		s = s.lent.s
	}
	return s
}

// enter permits the use of w. It fails once the foreign handler around it has
// returned.
func (s *standard) enter() bool { return s.lent == nil || s.lent.enter() }

func (s *standard) leave() {
	if s.lent != nil {
		s.lent.leave()
	}
}

// overdue reports whether a read of the request body has timed out.
func (s *standard) overdue() bool { return s.root().body.overdue() }

// readLent is readBody inside a foreign handler: the limits are applied where
// the body was lent.
func (s *standard) readLent(p []byte) (int, error) {
	b := &s.body
	if b.stopped.Load() {
		return 0, errStopped
	}
	n, err := s.r.Body.Read(p)
	b.read += int64(n)
	if !s.lending { // otherwise any goroutine may be reading, and takeBack does this
		s.lent.mu.Lock() // tell copies the record while a pump reads
		s.x.Record.BytesIn = b.read
		s.lent.mu.Unlock()
	}
	return n, err
}

// beforeLentHead is beforeHead inside a foreign handler.
func (s *standard) beforeLentHead(relayed bool) {
	if !s.root().unread() {
		return
	}
	rc := http.NewResponseController(s.w)
	if !relayed {
		_ = rc.SetReadDeadline(time.Now().Add(lingerTime))
		return
	}
	s.w.Header().Set("Connection", "close")
	_ = rc.EnableFullDuplex()
	for l := s.lent; l != nil; l = l.s.lent {
		l.mu.Lock()
		l.duplex, l.chunked = true, s.chunked && !s.noBody
		l.mu.Unlock()
	}
}

// stopLent is stopBody inside a foreign handler.
func (s *standard) stopLent() {
	s.body.stopped.Store(true)
	if s.lent.enter() {
		s.lent.s.stopBody()
		s.lent.leave()
	}
	if b := s.r.Body; b != nil && b != s.lent.body {
		_ = b.Close()
	}
}

// lentTrailer returns the trailer of a body that the foreign handler has not
// replaced.
func (s *standard) lentTrailer() *Fields {
	if s.r.Body != s.lent.body || !s.lent.enter() {
		return nil
	}
	defer s.lent.leave()
	return s.lent.s.trailer()
}

// lentSession returns the session of the exchange that was lent.
func (s *standard) lentSession(need bool) usage {
	l := s.lent
	if !l.enter() {
		return usage{first: true}
	}
	defer l.leave()
	l.mu.Lock() // several exchanges inside may ask at once
	defer l.mu.Unlock()
	return l.s.session(need)
}
