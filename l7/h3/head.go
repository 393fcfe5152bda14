// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quic-go/qpack"
	"golang.org/x/net/http/httpguts"
)

// sizes bounds a field section; 0 means no limit.
type sizes struct{ bytes, fields int }

// A section is a field section as it is decoded (RFC 9114, section 4.2).
type section struct {
	method, scheme, path, authority, protocol string

	seen    uint8 // pseudo fields, by bits
	regular bool
	trailer bool
	header  http.Header
	length  int64 // Content-Length; -1 without one
	n, size int
	cookies []string
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenPath
	seenAuthority
	seenProtocol
)

// decode decodes a block. QPACK's dynamic table is not used: our SETTINGS allow it no
// bytes.
func (s *section) decode(block []byte, limit sizes) *fault {
	s.header, s.length = make(http.Header, 8), -1
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return ofConn(codeQPACK, err.Error())
		}
		s.size += len(f.Name) + len(f.Value) + 32 // RFC 9114, section 4.2.2
		if f.Name != "cookie" || len(s.cookies) == 0 || limit.bytes == 0 {
			s.n++ // cookies are one field together, as long as the bytes are bounded
		}
		if limit.bytes > 0 && s.size > limit.bytes || limit.fields > 0 && s.n > limit.fields+5 {
			return &fault{code: codeExcessiveLoad, reason: "head too long", status: http.StatusRequestHeaderFieldsTooLarge}
		}
		if reason := s.field(f.Name, f.Value); reason != "" {
			return malformed(reason)
		}
	}
	if len(s.cookies) > 0 { // RFC 9114, section 4.2.1
		s.header["Cookie"] = []string{strings.Join(s.cookies, "; ")}
	}
	return nil
}

// field takes a field. It returns what makes it malformed, or "".
func (s *section) field(name, value string) string {
	if !httpguts.ValidHeaderFieldValue(value) || value != strings.Trim(value, " \t") {
		return "malformed value of a field"
	}
	if strings.HasPrefix(name, ":") {
		return s.pseudo(name, value)
	}
	s.regular = true
	if !httpguts.ValidHeaderFieldName(name) || strings.ToLower(name) != name {
		return "malformed name of a field"
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return "field of a connection"
	case "te":
		if value != "trailers" {
			return "TE other than trailers"
		}
	case "cookie":
		s.cookies = append(s.cookies, value)
		return ""
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || value[0] == '+' || s.length >= 0 && s.length != int64(n) {
			return "malformed Content-Length"
		}
		if s.length >= 0 { // the same again
			return ""
		}
		s.length = int64(n)
	}
	name = http.CanonicalHeaderKey(name)
	s.header[name] = append(s.header[name], value)
	return ""
}

// pseudo takes a pseudo field (RFC 9114, section 4.3.1).
func (s *section) pseudo(name, value string) string {
	if s.regular || s.trailer {
		return "a pseudo field after another field"
	}
	var bit uint8
	var to *string
	token := true
	switch name {
	case ":method":
		bit, to = seenMethod, &s.method
	case ":scheme":
		bit, to = seenScheme, &s.scheme
	case ":protocol":
		bit, to = seenProtocol, &s.protocol
	case ":path":
		bit, to, token = seenPath, &s.path, false
	case ":authority":
		bit, to, token = seenAuthority, &s.authority, false
	default:
		return "unknown pseudo field"
	}
	if s.seen&bit != 0 {
		return "a pseudo field twice"
	}
	if token && !httpguts.ValidHeaderFieldName(value) {
		return "malformed " + name[1:]
	}
	s.seen |= bit
	*to = value
	return ""
}

// request makes the request of a section; remote and the rest are the caller's. Upgrade
// says that it is an extended CONNECT (RFC 9220), which is the GET that asks HTTP/1 for an
// upgrade, with a key that we make.
func (s *section) request() (r *http.Request, upgrade bool, _ *fault) {
	r = &http.Request{
		Method: s.method, Proto: "HTTP/3.0", ProtoMajor: 3, Header: s.header, Body: http.NoBody,
		ContentLength: s.length, RequestURI: s.path, URL: new(url.URL),
	}
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	r.Host = s.authority
	hosts := r.Header["Host"]
	if s.seen&seenAuthority == 0 && len(hosts) > 0 {
		r.Host = hosts[0] // section 4.3.1
	}
	r.Trailer = announced(r.Header)
	plain := s.method == http.MethodConnect && s.seen&seenProtocol == 0
	if !plain {
		r.URL = target(s.path)
	}
	switch {
	case s.seen&seenMethod == 0:
		return r, false, malformed("no method")
	case len(hosts) > 1:
		return r, false, malformed("more than one Host")
	case len(hosts) == 1 && hosts[0] != r.Host:
		return r, false, malformed("Host is not the authority")
	case plain:
		if s.seen&(seenScheme|seenPath) != 0 || s.authority == "" || s.length > 0 {
			return r, false, malformed("malformed CONNECT") // section 4.4
		}
		r.RequestURI, r.URL, r.ContentLength = s.authority, &url.URL{Host: s.authority}, -1
		return r, false, nil
	case s.scheme == "" || s.path == "":
		return r, false, malformed("no scheme or path")
	case r.Host == "":
		return r, false, malformed("no authority")
	case s.seen&seenProtocol == 0:
		return r, false, nil
	case s.method != http.MethodConnect:
		return r, false, malformed(":protocol without CONNECT")
	case s.authority == "" || s.length > 0:
		return r, false, malformed("malformed extended CONNECT")
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	r.Method, r.ContentLength = http.MethodGet, 0
	r.Header["Connection"] = []string{"Upgrade"}
	r.Header["Upgrade"] = []string{s.protocol}
	r.Header["Sec-Websocket-Key"] = []string{base64.StdEncoding.EncodeToString(nonce[:])}
	r.Header["Sec-Websocket-Version"] = []string{"13"}
	return r, true, nil
}

// target parses a path. One that net/url cannot parse is checked by the Server.
func target(path string) *url.URL {
	if u, err := url.ParseRequestURI(path); err == nil {
		return u
	}
	p, q, _ := strings.Cut(path, "?")
	return &url.URL{Path: p, RawQuery: q}
}

// announced takes the field Trailer out of h, as net/http does.
func announced(h http.Header) http.Header {
	lines, ok := h["Trailer"]
	if !ok {
		return nil
	}
	delete(h, "Trailer")
	t := make(http.Header)
	for _, name := range trailerNames(lines) {
		t[name] = nil
	}
	return t
}

// trailerNames returns the names in the field Trailer of those that may be in a trailer.
func trailerNames(lines []string) (names []string) {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); httpguts.ValidTrailerHeader(name) {
				names = append(names, name)
			}
		}
	}
	return names
}
