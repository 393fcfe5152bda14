// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
)

// request makes the request for net/http of the one for HTTP/1, so that what
// is forwarded is decided in one place.
func (s *h2Stream) request(t *attempt, l *leg) (*http.Request, error) {
	x := t.x
	if t.method == http.MethodConnect {
		return nil, &badReply{errors.New("l7: CONNECT needs a server of HTTP/1")}
	}
	ctx := httptrace.WithClientTrace(s.ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			return s.passInterim(t, l, code, http.Header(header))
		},
	})
	req := &http.Request{
		Method: t.method, Host: x.Host, URL: targetURL(x), ContentLength: x.ContentLength,
		Header: headerOf(string(t.req.B[:t.headLen])), Body: http.NoBody,
	}
	if x.Host == "" { // HTTP/1.0 without Host
		if req.Host = x.authority(); req.Host == "" {
			req.Host = s.conn.host.key.addr
		}
		req.URL.Host = req.Host
	}
	if s.conn.tls != nil {
		req.URL.Scheme = "https"
	}
	if x.trailers {
		req.Header["Te"] = []string{"trailers"}
	}
	if x.expect {
		req.Header["Expect"] = []string{"100-continue"}
	}
	switch {
	case t.whole && x.ContentLength != 0:
		s.body.src = bytes.NewReader(t.req.B[t.headLen:])
		s.body.whole = true
		req.Body = &s.body
	case !t.whole:
		t.refusable = true
		s.body.src = t.stream()
		s.body.trailer = x.requestTrailer()
		req.Trailer = s.body.trailer
		req.Body = &s.body
	}
	return req.WithContext(ctx), nil
}

// targetURL makes a URL that is sent byte for byte as the target came.
func targetURL(x *Exchange) *url.URL {
	u := &url.URL{Scheme: "http", Host: x.Host, Opaque: x.Path}
	if strings.HasPrefix(x.Path, "//") {
		u.Opaque = "//" + x.Host + x.Path // taken off again by net/http
	}
	if x.Query != "" {
		u.RawQuery, u.ForceQuery = x.Query[1:], true
	}
	return u
}

// headerOf makes a header map of a request head. The strings are parts of it.
func headerOf(head string) http.Header {
	h := make(http.Header, 16)
	_, rest, _ := cutLine(head)
	for {
		line, more, ok := cutLine(rest)
		if !ok || line == "" {
			break
		}
		rest = more
		name, value, _ := strings.Cut(line, ": ")
		if k := kindOf(name); k.owned() || k == kindExpect || k == kindTrailer {
			continue
		}
		name = http.CanonicalHeaderKey(name)
		h[name] = append(h[name], value)
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // or net/http sends its own
	}
	return h
}

// requestTrailer returns the names of the fields that the client says it will
// send behind the body, nil if there are none.
func (x *Exchange) requestTrailer() http.Header {
	if x.ContentLength >= 0 && x.proto1x < 2 {
		return nil // which HTTP/1 cannot send
	}
	var h http.Header
	add := func(name string) {
		if isToken(name) && !forbiddenTrailer(name) {
			if h == nil {
				h = make(http.Header)
			}
			h[http.CanonicalHeaderKey(name)] = nil
		}
	}
	for v := range x.Header.Values("Trailer") {
		eachItem(v, add)
	}
	if s, ok := x.down.(*standard); ok { // net/http has taken the field away
		for name := range s.r.Trailer {
			add(name)
		}
	}
	return h
}
