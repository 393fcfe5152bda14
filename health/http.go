// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// HTTP asks for a resource over a connection of its own and passes if the
// reply is as expected. The zero value sends "GET / HTTP/1.1" and expects a
// status from 200 to 399. Redirects are not followed.
//
// Host, User-Agent ("penstock"), Connection and Content-Length come first, unless a
// field of that name is given. (HTTP/2 makes all names lower case.)
//
// A body is read only if it is to be matched, and only until Content is found.
type HTTP struct {
	Connect Connect // TLS makes it https

	HTTP2  bool        // speak HTTP/2: by ALPN over TLS, with prior knowledge in the clear
	Method string      // empty means GET
	Path   string      // with the query if there is one; empty means "/"; "*" is for OPTIONS
	Host   string      // empty means a Host of Header or Fields, or else the address of the endpoint
	Header http.Header // further fields, sent with the names as they are here, in alphabetical order
	Fields []Field     // the same, sent after them in this order
	Body   string      // of the request

	Status  []StatusRange // accepted ones; nil means 200 to 399
	Headers []HeaderMatch // each must hold
	Content Match         // of the body
	Stop    []StatusRange // these mean CodeStopping: no new work, persistence kept; HAProxy's disable-on-404 is {{From: 404}}

	// Judge, if not nil, decides alone: Status, Headers, Content and Stop do not
	// count. The body holds no more than MaxBytes.
	Judge func(r *http.Response, body []byte) error

	// MaxBytes bounds what is read. A longer head fails with CodeProtocol; of a
	// longer body the beginning is looked at. 0 means 16 KiB, negative means no limit below 1 GiB.
	MaxBytes int
}

// A Field is one field of a request.
type Field struct{ Name, Value string }

// A StatusRange is the statuses From to To, both included.
type StatusRange struct {
	From int
	To   int // 0 means From
}

func inRanges(status int, ranges []StatusRange) bool {
	for _, r := range ranges {
		if status >= r.From && status <= or(r.To, r.From) {
			return true
		}
	}
	return false
}

// A Match is satisfied by bytes that contain Contains and that Regexp matches.
// The zero value is satisfied by everything.
type Match struct {
	Contains string
	Regexp   *regexp.Regexp // nil means none
	Not      bool           // satisfied if this Match would not be otherwise
}

func (m *Match) zero() bool { return m.Contains == "" && m.Regexp == nil }

// ok reports whether b satisfies m.
func (m *Match) ok(b []byte) bool {
	if m.zero() {
		return true
	}
	return m.found(b) != m.Not
}

// found is ok without the negation.
func (m *Match) found(b []byte) bool {
	return bytes.Contains(b, []byte(m.Contains)) && (m.Regexp == nil || m.Regexp.Match(b))
}

// String says what m looks for.
func (m *Match) String() string {
	var parts []string
	if m.Contains != "" {
		parts = append(parts, `"`+printable(m.Contains)+`"`)
	}
	if m.Regexp != nil {
		parts = append(parts, "/"+printable(m.Regexp.String())+"/")
	}
	return strings.Join(parts, " and ")
}

// A HeaderMatch holds if one of the fields of this name satisfies Value, and
// with Value.Not if none has it. With a zero Value the field must be there.
type HeaderMatch struct {
	Name  string
	Value Match
}

func (m *HeaderMatch) ok(h http.Header) bool {
	positive := m.Value
	positive.Not = false
	found := false
	for _, v := range h.Values(m.Name) {
		found = found || positive.ok([]byte(v))
	}
	return found != m.Value.Not
}

// Probe sends the request and judges the reply.
func (p HTTP) Probe(ctx context.Context, e balance.Endpoint) error {
	if p.HTTP2 {
		req, err := p.request(ctx, e)
		if err != nil {
			return err
		}
		return p.Connect.http2(ctx, e, p.MaxBytes, req, p.judge)
	}
	s, err := p.Connect.open(ctx, e, p.MaxBytes)
	defer s.close()
	if err != nil {
		return err
	}
	s.step = "HTTP"
	req, err := p.request(ctx, e)
	if err != nil {
		return err
	}
	if err := s.send(p.head(req)); err != nil {
		return err
	}
	resp, err := s.response(req)
	if err != nil {
		return err
	}
	return p.judge(s, resp)
}

// response reads a head, past interim ones.
func (s *session) response(req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(s.r, req)
		if err != nil {
			return nil, s.fail(err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
}

// judge says whether the reply is the expected one. RFC 9110, section 15, for the statuses.
func (p *HTTP) judge(s *session, r *http.Response) error {
	if p.Judge != nil {
		body, err := p.body(s, r, func([]byte) bool { return false })
		if err != nil {
			return err
		}
		return p.Judge(r, body)
	}
	if inRanges(r.StatusCode, p.Stop) {
		return s.error(CodeStopping, "status %d", r.StatusCode)
	}
	accepted := p.Status
	if accepted == nil {
		accepted = []StatusRange{{200, 399}}
	}
	if !inRanges(r.StatusCode, accepted) {
		return s.error(CodeStatus, "status %d", r.StatusCode)
	}
	for _, h := range p.Headers {
		if !h.ok(r.Header) {
			return s.error(CodeContent, "field %s%s", h.Name, describeMatch(&h.Value))
		}
	}
	if p.Content.zero() {
		return nil
	}
	body, err := p.body(s, r, p.Content.found)
	if err == nil && !p.Content.ok(body) {
		err = s.error(CodeContent, "body%s", describeMatch(&p.Content))
	}
	return err
}

const (
	maxSearch = 16 << 20 // bytes looked at in a body that comes in small pieces

	// theRest is how long the rest of a body may take to come once Content is found. One
	// that breaks off at once is an error; one that goes on is not waited for.
	theRest = 20 * time.Millisecond
)

// body reads the body, up to the bound or until found says that it has what is looked for.
func (p *HTTP) body(s *session, r *http.Response, found func([]byte) bool) ([]byte, error) {
	var body []byte
	in, met := io.LimitReader(r.Body, int64(s.max)), false
	for searched := 0; ; {
		body = slices.Grow(body, 512)
		n, err := in.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if n > 0 && !met && searched < maxSearch { // else the caller finds it at the end
			searched += len(body)
			if met = found(body); met {
				s.raw.SetReadDeadline(time.Now().Add(theRest))
			}
		}
		if err == nil {
			continue
		}
		end := s.raw.end.Load()
		switch {
		case err == io.EOF || s.cut(err) || met && (isTimeout(err) || end != nil && isTimeout(*end)):
			return body, nil
		case p.HTTP2:
			s.step = "body"
			return nil, s.failHTTP2(err)
		}
		s.step = "body"
		return nil, s.fail(err)
	}
}

func describeMatch(m *Match) string {
	switch {
	case m.zero() && m.Not:
		return " is there"
	case m.zero():
		return " is missing"
	case m.Not:
		return " has " + m.String()
	}
	return " has no " + m.String()
}
