// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// h2Head is what the fields of a head or trailer say, apart from what goes into
// the exchange.
type h2Head struct {
	frame     framing
	scheme    string
	protocol  string // of an extended CONNECT (RFC 8441)
	path      string
	authority bool       // :authority was present
	regular   bool       // a regular field has come
	fields    *Fields    // of a trailer; nil for a head
	n         int        // fields
	size      int        // bytes of them
	cookies   int        // index of the Cookie line, plus 1
	crumbs    []string   // values of later Cookie lines, to be joined to it (RFC 9113, section 8.2.3)
	malformed string     // why the stream is reset behind a 400 (section 8.1.1); "" if it is not
	refused   *headError // the error with which the request is refused, or nil
}

// head begins an exchange. F.mu is held.
func (f *h2Front) head(ev *h2.Event, now time.Time) error {
	s, _ := f.srv.streams.Get().(*h2Exchange)
	if s == nil {
		s = new(h2Exchange)
		s.x.clear() // from now on it is recycle that does this
	}
	s.f, s.st = f, ev.Stream
	ev.Stream.Owner = s
	x := &s.x
	x.down = s
	x.from(f.from)
	x.proto = 2
	x.Record.Start = now
	s.head.frame.length = -1
	f.cur, f.dec = s, &s.head
	if err := f.h2.Decode(ev.Block, f.emit); err != nil {
		return err
	}
	if r := s.head.refused; r != nil && r.status == http.StatusRequestHeaderFieldsTooLarge {
		if err := f.h2.Overlong(now); err != nil {
			return err
		}
	}
	s.bodyEnd = ev.End
	s.begin()
	f.served++
	f.srv.serving.Add(1)
	f.regrant()
	if f.srv.endsBehind(f.served) && f.leaving == h2Staying {
		f.leaving = h2Warned
		f.leaveNow()
	}
	f.begin(s)
	f.heads += len(ev.Block)
	f.pause = f.served%h2Begins == 0 || f.heads > headBuffer
	return nil
}

// trailer begins to decode the fields after a body. F.mu is held.
func (f *h2Front) trailer(ev *h2.Event, now time.Time) error {
	s := ev.Stream.Owner.(*h2Exchange)
	t := &h2Head{frame: framing{length: -1}, fields: new(Fields)} // a new one: that of the head belongs to the handler
	f.cur, f.dec = s, t
	if err := f.h2.Decode(ev.Block, f.emit); err != nil {
		return err
	}
	switch {
	case t.malformed != "" && !s.told: // whoever reads the body may answer that
		s.broken = bad("trailer: " + t.malformed)
		s.recv.wake()
		return f.h2.Malformed(now)
	case t.malformed != "":
		return s.breakOff("trailer: "+t.malformed, now)
	}
	if t.fields.Len() > 0 {
		s.trailing = t.fields
	}
	return s.endBody(now)
}

// field handles one field of the head or trailer that is being decoded.
func (f *h2Front) field(hf *h2.HeaderField) {
	s, h := f.cur, f.dec
	h.n++
	h.size += len(hf.Name) + len(hf.Value) + 4
	if h.malformed != "" || h.refused != nil {
		return
	}
	limit, most := orDefault(f.srv.MaxHeaderBytes, defaultMaxHeader), orDefault(f.srv.MaxFields, defaultMaxFields)
	if limit > 0 && h.size > limit || most > 0 && h.n-5 > most {
		h.refused = &headError{http.StatusRequestHeaderFieldsTooLarge, "head too long"}
		if h.fields != nil {
			h.malformed = "too long"
		}
		return
	}
	if hf.Name != "" && hf.Name[0] == ':' {
		s.x.sensitive = s.x.sensitive || hf.Sensitive
		h.malformed = s.pseudo(h, hf.Name, hf.Value)
		return
	}
	h.regular = true
	k, fine := knownField(hf)
	if !fine {
		if h.malformed = fieldFault(hf, k); h.malformed != "" {
			return
		}
		switch fault := valueFault(hf); {
		case fault == "":
		case h.fields != nil:
			h.malformed = fault
			return
		default: // of which a 400 is to tell (section 8.2.1)
			h.refused = bad(fault)
			return
		}
		noteField(hf, k)
	}
	fd := Field{Name: hf.Name, Value: hf.Value, kind: k, checked: true, sensitive: hf.Sensitive}
	if hf.Name == "priority" && h.fields == nil {
		s.st.Urgency, s.st.Incremental = h2.ParsePriority(hf.Value)
	}
	if h.fields != nil {
		if !forbiddenTrailer(hf.Name) {
			h.fields.list = append(h.fields.list, fd)
		}
		return
	}
	list := &s.x.Header
	s.x.sensitive = s.x.sensitive || hf.Sensitive && k == kindHost
	if k == kindOther {
		if hf.Name == "cookie" {
			if h.cookies > 0 {
				h.crumbs = append(h.crumbs, hf.Value)
				first := &list.list[h.cookies-1]
				first.sensitive = first.sensitive || hf.Sensitive
				if limit > 0 {
					h.n-- // together they are one field, as long as the bytes are bounded
				}
				return
			}
			h.cookies = len(list.list) + 1
		}
		list.list = append(list.list, fd)
	} else if err := h.frame.field(list, fd); err != nil {
		if k == kindContentLength {
			h.malformed = err.reason
			return
		}
		h.refused = err
	}
}

// pseudo handles a pseudo field (RFC 9113, section 8.3.1). It returns what is
// wrong with it, or "".
func (s *h2Exchange) pseudo(h *h2Head, name, value string) string {
	x := &s.x
	if h.regular || h.fields != nil {
		return "a pseudo field after another field"
	}
	switch name {
	case ":method":
		if x.Method != "" || !isToken(value) {
			return "malformed method"
		}
		x.Method = value
	case ":scheme":
		if h.scheme != "" || !isToken(value) {
			return "malformed scheme"
		}
		h.scheme = value
	case ":path":
		if h.path != "" || value == "" {
			return "malformed path"
		}
		h.path = value
	case ":protocol":
		if h.protocol != "" || !isToken(value) {
			return "malformed protocol"
		}
		h.protocol = value
	case ":authority":
		if h.authority {
			return "more than one authority"
		}
		h.authority, x.Host = true, value
	default:
		return "unknown pseudo field"
	}
	return ""
}

// begin completes the exchange from its head.
func (s *h2Exchange) begin() {
	h, x := &s.head, &s.x
	if h.malformed == "" {
		h.malformed = s.check()
	}
	if h.malformed == "" && h.refused == nil {
		h.refused = s.target()
	}
	x.begin(FrontHTTP2)
}

// check returns what makes the request as a whole malformed, or "".
func (s *h2Exchange) check() string {
	h, x := &s.head, &s.x
	if len(h.crumbs) > 0 {
		joinCookies(&x.Header.list[h.cookies-1], h.crumbs)
	}
	switch {
	case x.Method == "":
		return "no method"
	case h.protocol != "":
		return s.extend()
	case x.Method == http.MethodConnect:
		if h.scheme != "" || h.path != "" || !h.authority {
			return "malformed CONNECT" // section 8.5
		}
		if h.frame.length > 0 {
			return "CONNECT with a Content-Length"
		}
		h.frame.length = -1 // DATA of a tunnel is not a body, so that a length of 0 does not bound it
		return ""
	case h.scheme == "" || h.path == "":
		return "no scheme or path"
	}
	x.ContentLength = h.frame.length
	switch {
	case s.bodyEnd && h.frame.length > 0:
		return "no body where Content-Length says that there is one" // section 8.1.1
	case s.bodyEnd:
		x.ContentLength = 0
	}
	return ""
}

// joinCookies joins several Cookie lines to one.
func joinCookies(line *Field, crumbs []string) {
	n := len(line.Value)
	for _, c := range crumbs {
		n += 2 + len(c)
	}
	b := append(make([]byte, 0, n), line.Value...)
	for _, c := range crumbs {
		b = append(append(b, "; "...), c...)
	}
	line.Value = string(b)
}

// target refuses requests that are well-formed in HTTP/2 but not valid HTTP.
func (s *h2Exchange) target() *headError {
	h, x := &s.head, &s.x
	authority := x.Host
	if x.Method == http.MethodConnect {
		if err := x.setTarget(authority); err != nil {
			return err
		}
	} else {
		if h.path[0] != '/' && h.path != "*" {
			return bad("malformed path")
		}
		if err := x.setTarget(h.path); err != nil {
			return err
		}
		x.Host = authority
	}
	f := &h.frame
	if h.authority && !validHost(authority) {
		return bad("malformed authority")
	}
	switch {
	case f.hosts > 1:
		return bad("more than one Host")
	case f.hosts == 1 && !validHost(f.host):
		return bad("malformed Host")
	case f.hosts == 1 && h.authority && !sameHost(x.Method, f.host, authority, h.scheme):
		return bad("Host is not the authority") // section 8.3.1
	case f.hosts == 1 && !h.authority:
		x.Host = f.host
	case x.Host == "":
		return bad("no authority")
	}
	if f.unmet != "" {
		return &headError{http.StatusExpectationFailed, "unknown expectation"}
	}
	if limit := s.f.srv.MaxBodyBytes; limit > 0 && x.ContentLength > limit {
		return &headError{http.StatusRequestEntityTooLarge, "body too long"}
	}
	x.trailers = f.trailers
	x.expect = f.expect && x.ContentLength != 0
	return nil
}
