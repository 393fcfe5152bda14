// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
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
	srv       *Server      // nil if the http.Server is the host's
	conn      *clientConn  // nil if it is not known
	first     bool         // the first request on conn
	attached  *Attachment  // of the front that conn belongs to; nil under an http.Server
	refused   *headError   // why that front does not accept the request; nil if it does
	under     ownFront     // the front that has made w and r; nil under an http.Server
	front     Front        // of under
	through   *through     // the native continuation of under; nil if there is none
	lent      *carried     // lent to the foreign handler around; nil if there is none
	around    *carried     // likewise, if this is that exchange itself, which has gone through
	lending   bool         // the exchange is lent to a foreign handler inside
	body      standardBody // of the request
	stopGone  func() bool  // undoes attach
	writes    writeLimit
	noBody    bool // the reply has no body
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

// accept is parse, unless an attached front has refused the request already.
func (s *standard) accept() *headError {
	err := s.parse()
	if err != nil && s.x.Record.Proto == "" { // the record still says what is known
		s.x.begin(s.kindOfFront())
	}
	if s.refused != nil {
		return s.refused
	}
	return err
}

func (s *standard) kindOfFront() Front {
	if s.attached != nil {
		return FrontHTTP3
	}
	return FrontStandard
}

// announce has the reply say that there is an attached front, if this is not it.
func (s *standard) announce() {
	if s.attached == nil {
		s.srv.announces(s.x)
	}
}

// parse fills the exchange from the request of net/http, and checks what
// net/http does not.
func (s *standard) parse() *headError {
	x, r := s.x, s.r
	x.Method, x.asked.method = r.Method, r.Method
	x.proto = int8(r.ProtoMinor)
	if r.ProtoMajor > 1 {
		x.proto = int8(r.ProtoMajor)
	}
	x.Scheme, x.TLS = "http", r.TLS
	if r.TLS != nil {
		x.Scheme = "https"
	}
	x.Remote, _ = netip.ParseAddrPort(r.RemoteAddr)
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		x.Local = addrPort(a)
	}
	x.Remote = netip.AddrPortFrom(x.Remote.Addr().Unmap(), x.Remote.Port())
	x.Client = x.Remote.Addr()
	if s.conn != nil {
		if nc := s.conn.kept; nc != nil {
			x.proxied, x.ja4 = keptWith(nc, l4.ProxyHeaderOf), keptWith(nc, l4.JA4Of)
		}
	}
	if !isToken(r.Method) {
		return bad("malformed method") // HTTP/2, or set by a handler
	}
	x.ContentLength = r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		x.ContentLength = 0
	}
	target := requestTarget(r)
	if target == "" {
		return bad("malformed target")
	}
	if err := x.setTarget(target); err != nil {
		return err
	}
	if x.Host == "" || x.Method != http.MethodConnect {
		x.Host = r.Host
	}
	if !validHost(x.Host) && (x.Host != "" || x.proto != 0) {
		return bad("malformed Host")
	}
	x.begin(s.kindOfFront())
	return s.parseHeader()
}

// parseHeader lists the header map, without connection fields.
func (s *standard) parseHeader() *headError {
	x, r := s.x, s.r
	x.Header.reset()
	f := framing{length: -1}
	n, maxFields := 0, defaultMaxFields
	switch {
	case s.lent != nil:
		maxFields = 0 // the client's fields have been counted
	case s.srv != nil:
		maxFields = orDefault(s.srv.MaxFields, defaultMaxFields)
	}
	for name, values := range r.Header {
		if n += len(values); maxFields > 0 && n > maxFields {
			return &headError{http.StatusRequestHeaderFieldsTooLarge, "too many fields"}
		}
		kind := kindOf(name)
		for _, v := range values {
			v = trimOWS(v) // net/http leaves white space around a value of HTTP/2
			k := kind
			if k == kindForwarded && s.lent != nil && !s.lent.wasSent(name, v) {
				k, x.Header.tells = kindOther, true // set by the foreign handler
			}
			if k == kindOther {
				x.Header.list = append(x.Header.list, Field{Name: name, Value: v, kind: k})
			} else if err := f.field(&x.Header, Field{Name: name, Value: v, kind: k}); err != nil {
				return err
			}
		}
	}
	x.grpc = x.isGRPC()
	switch {
	case s.lent != nil && (f.nominated || s.lent.nominated != nil):
		s.lent.nominated.drop(&x.Header, &f.options)
	case f.nominated:
		x.Header.dropNominated(&f.options)
	}
	if len(r.Trailer) > 0 { // net/http has removed the field
		names := strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ", ")
		x.Header.list = append(x.Header.list, Field{"Trailer", names, kindTrailer, true})
	}
	switch {
	case f.unmet != "":
		return &headError{http.StatusExpectationFailed, "unknown expectation"}
	case s.lent != nil: // the rest concerns what the client has sent
	case f.length > 0 && x.ContentLength == 0 && x.proto > 1 || len(r.Header["Content-Length"]) > 1:
		// In HTTP/2 the length must match the field (RFC 9113, section 8.1.1). In
		// HTTP/1 another length means that an outer handler has replaced the body.
		return bad("Content-Length is not that of the body")
	case f.hosts > 1 || f.hosts == 1 && !sameAuthority(f.host, x.Host, x.Scheme):
		return bad("Host is not the authority") // HTTP/2
	}
	if s.srv != nil && s.srv.MaxBodyBytes > 0 && x.ContentLength > s.srv.MaxBodyBytes {
		return &headError{http.StatusRequestEntityTooLarge, "body too long"}
	}
	if s.lent == nil && (x.ContentLength < 0 && x.proto == 1 || x.proto == 0 && (x.ContentLength != 0 || f.length < 0 && bodyExpected(x.Method))) {
		// net/http removes a Content-Length that came with a Transfer-Encoding, and
		// in HTTP/1.0 the Transfer-Encoding, so what the client sent is not known.
		// The connection must not be read after such a request (golang/go#80942).
		s.w.Header().Set("Connection", "close")
	}
	x.upgrade = ""
	if s.attached != nil && f.upgrade && hijackable(s.w) {
		x.wsKey = x.Header.Get("Sec-WebSocket-Key")
	}
	if f.upgrade && x.ContentLength == 0 && (x.proto == 1 || s.root().x.wsKey != "") {
		x.upgrade = f.protocol.join()
	}
	x.trailers = f.trailers || x.trailers && x.proto > 1 // a request made from a stream lacks the field
	x.expect = f.expect && x.proto > 0 && x.ContentLength != 0
	return nil
}

func (s *standard) context() context.Context { return s.r.Context() }

func (s *standard) request() *http.Request {
	r := *s.r
	u := *s.r.URL
	r.URL = &u
	return &r
}

func (s *standard) trailer() *Fields {
	var f Fields
	for name, values := range s.r.Trailer {
		for _, v := range values {
			// net/http lets through invalid names.
			if isToken(name) && validValue(v) && !forbiddenTrailer(name) && !s.aroundSets(name) {
				f.list = append(f.list, Field{Name: name, Value: trimOWS(v), checked: true})
			}
		}
	}
	switch {
	case len(f.list) == 0 && s.lent != nil:
		return s.lentTrailer()
	case len(s.r.Trailer) == 0:
		return nil
	}
	return &f
}

// aroundSets reports whether a name of the trailer is in the header as well. On an
// http.Server it may be a field of the gateway's own that a handler of net/http
// around has set: nothing tells that from what the client has sent.
func (s *standard) aroundSets(name string) bool {
	return s.lent == nil && slices.ContainsFunc(s.x.Header.list, func(f Field) bool { return alike(f.Name, name) })
}

func (s *standard) writeInterim(r *Reply) error {
	if s.x.proto == 0 || r.Status == http.StatusContinue {
		return nil // net/http sends its own 100 when the body is read
	}
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	h := s.w.Header()
	saved := maps.Clone(h)
	clear(h) // these fields are for the final reply
	addFields(h, &r.Header)
	if s.r.ProtoMajor > 1 {
		// Net/http sends a copy without this field if there is one. Otherwise it may
		// still read h behind WriteHeader, if the client has reset the stream.
		h["Content-Length"] = nil
	}
	s.w.WriteHeader(r.Status)
	clear(h)
	maps.Copy(h, saved)
	return nil
}

func (s *standard) writeHead(r *Reply) error {
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	if s.lent != nil {
		s.lent.tell(s.x, r)
	}
	h := s.w.Header()
	addFields(h, &r.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // suppresses guessing
	}
	s.noBody = s.x.bodiless(r.Status)
	s.chunked = r.ContentLength < 0
	if r.ContentLength >= 0 && r.Status != http.StatusNoContent && !s.x.opensTunnel(r.Status) {
		h.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	s.beforeHead(r.Server != nil)
	s.begun = true
	s.w.WriteHeader(r.Status)
	return nil
}

func (s *standard) writeBody(p []byte) error {
	if s.noBody || len(p) == 0 {
		return nil
	}
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	s.sending()
	_, err := s.w.Write(p)
	return err
}

func (s *standard) direct(int64) directWriter { return nil }

func (s *standard) sending() {
	s.writes.renew(s.w)
	if s.x.grpc {
		s.root().keepReading()
	}
}

func (s *standard) flush() error {
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	s.sending()
	err := http.NewResponseController(s.w).Flush()
	s.writes.lift(s.w)
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

func (s *standard) finish(trailer *Fields) error {
	if trailer == nil || trailer.Len() == 0 || s.noBody || !s.chunked && s.x.proto < 2 {
		return nil
	}
	if err := s.flush(); err != nil { // the trailer needs a head that is already sent
		return err
	}
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	for name, v := range trailer.All() {
		s.w.Header().Add(http.TrailerPrefix+http.CanonicalHeaderKey(name), v)
	}
	return nil
}

func (s *standard) abort() { s.aborted = true }

func (s *standard) attach(u interrupter) {
	s.stopGone = context.AfterFunc(s.r.Context(), func() {
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
		h, ok := s.r.Context().Value(handedKey{}).(*handedConn)
		if !ok {
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

func (s *standard) present() bool { return s.lent != nil && s.root().r.Context().Err() == nil }

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
func (s *standard) serveForeign(h http.Handler, _ bool) {
	l, r := s.lend()
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
	} else if h, ok := s.r.Context().Value(handedKey{}).(*handedConn); ok {
		probe(h)
	}
}
