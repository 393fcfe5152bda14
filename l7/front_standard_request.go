// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

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
		x.Header.list = append(x.Header.list, Field{Name: "Trailer", Value: names, kind: kindTrailer, checked: true})
	}
	switch {
	case f.unmet != "":
		return &headError{http.StatusExpectationFailed, "unknown expectation"}
	case s.lent != nil: // the rest concerns what the client has sent
	case f.length > 0 && x.ContentLength == 0 && x.proto > 1 || len(r.Header["Content-Length"]) > 1:
		// In HTTP/2 the length must match the field (RFC 9113, section 8.1.1). In
		// HTTP/1 another length means that an outer handler has replaced the body.
		return bad("Content-Length is not that of the body")
	case f.hosts > 1 || f.hosts == 1 && !sameHost(x.Method, f.host, x.Host, x.Scheme):
		return bad("Host is not the authority") // HTTP/2
	}
	if s.srv != nil && s.srv.MaxBodyBytes > 0 && x.ContentLength > s.srv.MaxBodyBytes {
		return &headError{http.StatusRequestEntityTooLarge, "body too long"}
	}
	if s.lent == nil && (x.ContentLength < 0 && x.proto == 1 || x.proto == 0) {
		// net/http removes a Content-Length that came with a Transfer-Encoding, and
		// in HTTP/1.0 the Transfer-Encoding of any request, so what the client sent is
		// not known. The connection must not be read after a request that may have had
		// one (RFC 9112, section 6.1; golang/go#80942).
		s.w.Header().Set("Connection", "close")
	}
	x.upgrade = ""
	if s.attached != nil && f.upgrade && hijackable(s.w) {
		x.wsKey = x.Header.Get("Sec-WebSocket-Key")
	}
	if f.upgrade && x.ContentLength == 0 && (x.proto == 1 || x.wsKey != "") {
		x.upgrade = f.protocol.join()
	}
	x.trailers = f.trailers || x.trailers && x.proto > 1 // a request made from a stream lacks the field
	x.expect = f.expect && x.proto > 0 && x.ContentLength != 0
	return nil
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
