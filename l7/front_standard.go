// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
)

// ServeHTTP is the standard front: it wraps (w, r) in an [Exchange] and calls h
// with it. The ServeHTTP method of a native handler does only this.
func ServeHTTP(h Handler, w http.ResponseWriter, r *http.Request) {
	if ew, ok := w.(*editingWriter); ok && ew.goThrough(h, r) {
		return
	}
	s := newStandardExchange(w, r, nil)
	if s.lent = lentOf(w, r); s.lent != nil {
		s.serveInside(h)
		return
	}
	s.run(h)
}

// standard is the downstream of an exchange under an [http.Server].
type standard struct {
	x         *Exchange
	w         http.ResponseWriter
	r         *http.Request
	srv       *Server         // nil if the http.Server is the host's
	conn      *clientConn     // nil if it is not known
	attached  *Attachment     // of the front that conn belongs to; nil under an http.Server
	refused   *headError      // why that front does not accept the request; nil if it does
	under     ownFront        // the front that has made w and r; nil under an http.Server
	through   *through        // the native continuation of under; nil if there is none
	lent      *carried        // lent to the foreign handler around; nil if there is none
	around    *carried        // likewise, if this is that exchange itself, which has gone through
	room      *carried        // to lend it with; nil means a new one
	given     context.Context // of the request, if the foreign handler has got that itself; nil if not
	body      standardBody    // of the request
	stopGone  func() bool     // undoes attach
	writes    *writeLimit     // nil means none
	front     Front           // of under
	first     bool            // the first request on conn
	lending   bool            // the exchange is lent to a foreign handler inside
	noBody    bool            // the reply has no body
	chunked   bool
	aborted   bool
	cutInside bool // an exchange inside has cut the reply, and told why
	begun     bool // the head of the final reply has been given to net/http
	duplex    bool // the reply began before the end of the request body
	hijacked  bool
}

func newStandardExchange(w http.ResponseWriter, r *http.Request, srv *Server) *standard {
	o := &struct {
		standard
		x Exchange
	}{standard: standard{w: w, r: r, srv: srv}}
	o.standard.x = &o.x
	o.x.down = &o.standard
	return &o.standard
}

// run serves the exchange from the root of a handler tree.
func (s *standard) run(h http.Handler) {
	x := s.x
	x.Record.Start = time.Now()
	clean := false
	defer func() {
		if !clean {
			if !s.cutInside {
				x.Record.Termination = endOf(l4.Internal, l4.PhaseRequest)
			}
			// Under an http.Server of the host's, outer handlers may want to recover the
			// panic.
			if s.srv != nil {
				if p := recover(); p != nil {
					s.panicked(p)
				} else {
					s.neverReturned()
				}
				clean = true
			}
		}
		s.lingerBody()
		if !s.hijacked && s.r.ProtoMajor == 1 {
			s.writes.lift(s.w)
		}
		s.killed()
		if s.srv != nil {
			s.srv.ended(x)
		}
		if s.aborted && clean {
			panic(http.ErrAbortHandler)
		}
	}()
	if err := s.accept(); err != nil {
		s.mustClose()
		x.Record.Err = err
		x.Error(err.status, endOf(l4.Denied, l4.PhaseRequest))
	} else if err := firstUse(h); err != nil {
		x.misconfigured(err)
	} else {
		if s.srv != nil {
			s.announce()
		}
		if s.srv != nil && s.conn != nil && s.srv.misdirects(x, &s.conn.hosts) {
			x.Error(http.StatusMisdirectedRequest, endOf(l4.Denied, l4.PhaseRequest))
		} else {
			Serve(h, x)
		}
		x.mustReply()
	}
	clean = true
}

// panicked ends an exchange whose handler panicked: with a reply if none has
// begun, else by cutting the connection, or the stream.
func (s *standard) panicked(p any) {
	x := s.x
	if p == http.ErrAbortHandler && s.cutInside {
		x.replied, s.aborted = true, true
		return
	}
	x.Record.Err = recovered(s.logger(), p, "handler", "path", x.Path)
	if s.begun || s.hijacked || s.aborted || p == http.ErrAbortHandler {
		x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
		x.replied, s.aborted = true, true
		return
	}
	clear(s.w.Header())
	if x.proto < 2 {
		s.w.Header().Set("Connection", "close")
	}
	x.failed500()
}

// neverReturned ends an exchange whose handler has ended its goroutine, or has
// panicked with nil (GODEBUG=panicnil=1). It logs nothing, like net/http.
func (s *standard) neverReturned() {
	x := s.x
	x.Record.Termination, x.Record.Err = endOf(l4.Internal, l4.PhaseData), errNoReturn
	x.replied, s.aborted = true, true
}

func (s *standard) observed() bool {
	srv := s.root().srv
	return srv != nil && srv.OnDone != nil
}

func (s *standard) logger() *slog.Logger {
	if srv := s.root().srv; srv != nil {
		return srv.logger()
	}
	return slog.Default()
}

// givenRequests stand in for a request of HTTP/1 and of HTTP/2 that has been given away.
// Nothing changes them.
var givenRequests = [...]http.Request{{ProtoMajor: 1, Body: http.NoBody}, {ProtoMajor: 2, Body: http.NoBody}}

// give gives the request, which has no body, to the foreign handler itself. It may change
// it as it likes and at any time, so it is not looked at any more.
func (s *standard) give() {
	s.given = s.r.Context()
	if s.r = &givenRequests[0]; s.x.proto > 1 {
		s.r = &givenRequests[1]
	}
}

func (s *standard) context() context.Context {
	if s.given != nil {
		return s.given
	}
	return s.r.Context()
}

func (s *standard) request() *http.Request {
	if s.given != nil {
		r := new(http.Request)
		s.under.ownRequest(r, new(requestContext))
		r.Body, r.ContentLength = http.NoBody, 0
		return r.WithContext(s.given)
	}
	r := *s.r
	u := *s.r.URL
	r.URL = &u
	return &r
}

func (s *standard) attach(u interrupter) {
	s.stopGone = context.AfterFunc(s.context(), func() {
		if !s.overdue() { // the reader of the body reports that
			u.interrupt()
		}
	})
}

func (s *standard) detach() bool { return s.stopGone() }

func (s *standard) session(need bool) usage {
	switch {
	case s.lent != nil:
		return s.lentSession(need)
	case s.under != nil:
		return s.under.session(need)
	}
	if s.conn == nil { // an outer handler may have replaced the request
		h := s.handed()
		if h == nil {
			return usage{first: true}
		}
		s.conn, s.first = &h.clientConn, h.requests.Load() == 1
	}
	return usage{s.conn.session(need), s.first}
}

// mustClose is for HTTP/1 only: in HTTP/2 it would end the connection with all
// its streams, of which only this one is at fault.
func (s *standard) mustClose() {
	if !s.x.replied && s.r.ProtoMajor == 1 && s.enter() {
		s.w.Header().Set("Connection", "close")
		s.leave()
	}
}

func (s *standard) present() bool { return s.lent != nil && s.root().context().Err() == nil }

func (s *standard) hijackable() bool { return hijackable(s.w) }

func (s *standard) hijack(r *Reply) (*l4.Conn, []byte, error) {
	if !s.enter() {
		return nil, nil, errReturned
	}
	defer s.leave()
	for name, values := range s.w.Header() { // set by outer handlers
		if k := kindOf(name); !k.owned() && !strings.HasPrefix(name, http.TrailerPrefix) {
			for _, v := range values {
				if isToken(name) {
					r.Header.list = append(r.Header.list, Field{Name: name, Value: cleanValue(v), kind: k, checked: true})
				}
			}
		}
	}
	if s.lent != nil {
		s.lent.switchTo(s.x, r)
	}
	nc, brw, err := http.NewResponseController(s.w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s.hijacked = true
	liftBounds(nc)
	_ = nc.SetDeadline(time.Time{})
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	c := l4.NewConn(nc)
	if _, err := c.Write(appendSwitch(nil, r, s.x.upgrade)); err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	return c, early, nil
}

// serveForeign calls h with the edited request; the editors edit its reply.
func (s *standard) serveForeign(h http.Handler, _ wrapping) {
	l, r := s.lend()
	if s.srv != nil && s.lent == nil && s.unread() {
		if h := s.handed(); h != nil {
			ctx, end := s.shielded(h)
			defer end()
			l.ctx.Context = ctx
		}
	}
	ew := &l.writer
	s.lending = true
	returned := false
	defer func() {
		if ew.taken != nil {
			ew.taken.forget()
		}
		if f := r.MultipartForm; f != nil { // net/http removes only that of its own request
			_ = f.RemoveAll()
		}
		if !returned {
			l.takeBack()
			s.lending = false
			ew.end(false)
		}
	}()
	h.ServeHTTP(ew, r)
	returned = true
	l.takeBack()
	s.lending = false
	defer ew.end(false)
	if !ew.hijacked {
		_ = ew.open()
	}
	if !l.refused {
		s.x.noteForeignGRPC(s.w.Header())
	}
	ew.end(true)
	if s.srv != nil && s.srv.cutting.Load() && r.Context().Err() != nil {
		s.x.Record.Termination = endOf(l4.Killed, l4.PhaseData)
	}
}

// HandlerFunc is a func as a [Handler].
type HandlerFunc func(x *Exchange)

// ServeExchange calls f.
func (f HandlerFunc) ServeExchange(x *Exchange) { f(x) }

// ServeHTTP implements [http.Handler].
func (f HandlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(f, w, r) }

// Check returns what is wrong with f.
func (f HandlerFunc) Check() error {
	var m penstock.Mistakes
	m.Need("HandlerFunc", f, "must be a func")
	return m.Err()
}

func (s *standard) limits() (l clientLimits, ok bool) {
	if s.root().srv == nil {
		return l, false
	}
	return s.root().srv.clientLimits(), true
}

func (s *standard) lost() bool {
	u := s.root().under
	return u != nil && u.lost()
}

// endedByHandler relies on net/http, which ends no context by itself after an upgrade.
func (s *standard) endedByHandler() bool {
	root := s.root()
	if u := root.under; u != nil {
		return u.endedByHandler() || u.context().Err() == nil
	}
	return root.srv == nil || !root.srv.cutting.Load() && (root.attached == nil || !root.attached.cutting.Load())
}

func (s *standard) parker() *l4.Parker {
	if s.root().srv == nil {
		return nil
	}
	return s.root().srv.parking.peek()
}

func (s *standard) probe() {
	if s.under != nil {
		s.under.probe()
	} else if h := s.handed(); h != nil {
		probe(h)
	}
}
