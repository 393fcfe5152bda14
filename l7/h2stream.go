// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4"
)

// An h2Stream is a request and its reply over a connection of HTTP/2.
type h2Stream struct {
	conn   *h2Conn
	ctx    context.Context // of the stream: its end resets it
	cancel context.CancelFunc
	begun  bool // the reserved stream is in use
	over   bool // given back
	body   h2Body
	resp   *http.Response
	rep    Reply
	fate

	mu      sync.Mutex
	timer   *time.Timer
	late    atomic.Bool // a time limit has passed
	interim int
	closed  bool // interim replies are not passed on any more

	x        *Exchange // whose client gets what there is before a wait; nil if there is nobody
	limit    time.Duration
	bodyEnd  time.Time
	buf      *l4.Buffer
	bodyErr  error
	trailing *Fields
}

func newH2Stream(c *h2Conn, reused bool) *h2Stream {
	s := &h2Stream{conn: c}
	s.reused = reused
	s.ctx, s.cancel = context.WithCancel(bg)
	c.requests.Add(1)
	return s
}

func (s *h2Stream) interrupt() {
	s.interrupted.Store(true)
	s.cancel()
}

func (s *h2Stream) end() *fate                     { return &s.fate }
func (s *h2Stream) reply() *Reply                  { return &s.rep }
func (s *h2Stream) tlsState() *tls.ConnectionState { return s.conn.tls }
func (s *h2Stream) trailers() *Fields              { return s.trailing }
func (s *h2Stream) ended() bool                    { return s.bodyErr == io.EOF }

// arm has the stream reset after d, unless disarmed; 0 means never.
func (s *h2Stream) arm(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armLocked(d)
}

// armHead is arm while the head of the reply has not come.
func (s *h2Stream) armHead(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.armLocked(d)
	}
}

func (s *h2Stream) armLocked(d time.Duration) {
	switch {
	case s.timer != nil && d > 0:
		s.timer.Reset(d)
	case s.timer != nil:
		s.timer.Stop()
	case d > 0:
		s.timer = time.AfterFunc(d, func() {
			s.late.Store(true)
			s.cancel()
		})
	}
}

// roundTrip implements source.
func (s *h2Stream) roundTrip(t *attempt, l *leg, now time.Time) error {
	limit := orDefault(t.p.HeaderTimeout, defaultHeadersTimeout)
	s.body = h2Body{s: s, t: t, limit: limit, turn: make(chan struct{}, 1)}
	s.body.turn <- struct{}{}
	req, err := s.request(t, l)
	if err != nil {
		return err
	}
	s.begun = true
	if t.whole {
		s.arm(l.within(now, limit))
	} else {
		s.body.deadline = l.deadline
		s.arm(until(now, 0, l.deadline))
	}
	s.resp, err = s.conn.cc.RoundTrip(req)
	s.mu.Lock()
	s.closed = true // and whoever passes one on has done so
	s.mu.Unlock()
	if err != nil {
		return s.failure(err)
	}
	s.arm(0)
	s.gotHead = true
	return s.makeReply(t.method)
}

// failure says what an error of net/http means here.
func (s *h2Stream) failure(err error) error {
	if r := s.conn.reason.Load(); r != nil {
		s.cutReason.Store(r)
	}
	if p := s.body.fromClient.Load(); p != nil {
		return &clientError{*p}
	}
	if s.late.Load() {
		return os.ErrDeadlineExceeded
	}
	var se http2.StreamError
	switch {
	case errors.As(err, &se) && se.Code == http2.ErrCodeRefusedStream, unprocessed(err):
		return &unsentError{err, true} // RFC 9113, section 8.7
	case errors.As(err, &se) && se.Code == http2.ErrCodeProtocol, strings.Contains(err.Error(), "malformed response"):
		return &badReply{err}
	}
	return err
}

// unprocessed reports whether the connection ended before the server looked at
// the request. net/http has no values for these errors, only texts.
func unprocessed(err error) bool {
	switch text := err.Error(); text {
	case "http2: Transport received Server's graceful shutdown GOAWAY", "http2: client conn not usable",
		"http2: client conn could not be established":
		return true
	default: // of the first stream, behind a GOAWAY of 0
		return strings.HasPrefix(text, "http2: Transport received GOAWAY from server ErrCode:")
	}
}

// passInterim passes an interim reply on. It is called by the connection's
// goroutine while roundTrip waits.
func (s *h2Stream) passInterim(t *attempt, l *leg, code int, header http.Header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interim++; s.interim > maxInterim || code == http.StatusSwitchingProtocols {
		return &badReply{errors.New("too many interim replies, or one that HTTP/2 does not have")}
	}
	s.gotHead = true
	if s.closed || l.race != nil {
		return nil
	}
	r := Reply{Status: code, ContentLength: -1, Header: fieldsOf(header)}
	// In net/http's goroutine there is nobody else to recover.
	if err := guard(t.x, "interim reply", func() error { return t.x.writeInterim(&r) }); err != nil {
		s.body.fromClient.CompareAndSwap(nil, &err) // net/http would lose it
		return &clientError{err}
	}
	return nil
}

// fieldsOf lists a header map in the order of names, without what belongs to a
// connection.
func fieldsOf(h http.Header) Fields {
	var f Fields
	f.list = make([]Field, 0, len(h)+2)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		k := kindOf(name)
		if k.owned() || !isToken(name) {
			continue
		}
		for _, v := range h[name] {
			f.list = append(f.list, Field{name, cleanValue(v), k, true})
		}
	}
	return f
}

// makeReply turns the head of the response into that of a reply.
func (s *h2Stream) makeReply(method string) error {
	resp, r := s.resp, &s.rep
	if resp.StatusCode < 200 || resp.StatusCode > 999 {
		return &badReply{errors.New("status " + strconv.Itoa(resp.StatusCode))}
	}
	n := 0
	for _, v := range resp.Header {
		n += len(v)
	}
	if n > maxReplyFields {
		return &badReply{errors.New("too many fields")}
	}
	*r = Reply{Status: resp.StatusCode, Header: fieldsOf(resp.Header), ContentLength: resp.ContentLength}
	if len(resp.Trailer) > 0 {
		r.Header.list = append(r.Header.list, Field{Name: "Trailer", Value: strings.Join(slices.Sorted(maps.Keys(resp.Trailer)), ", "), kind: kindTrailer})
	}
	if method == http.MethodHead || !bodyAllowed(r.Status) {
		s.bodyErr = io.EOF // net/http misses what its Content-Length says
	}
	if r.Status == http.StatusNoContent {
		r.ContentLength = -1
	}
	return nil
}

func (s *h2Stream) expectBody(x *Exchange, limit time.Duration, end time.Time) {
	s.x, s.limit, s.bodyEnd = x, limit, end
}

// next implements source. It cannot know whether there is more at hand, so it
// flushes each time.
func (s *h2Stream) next() ([]byte, error) {
	if s.bodyErr != nil {
		return nil, s.bodyErr
	}
	if s.buf == nil {
		s.buf = s.conn.host.up.bulk.Get()
	}
	if s.x != nil && s.rep.ContentLength != 0 { // else the end is there, and may go out with the head, as gRPC wants it
		if err := s.x.down.flush(); err != nil {
			return nil, &clientError{err}
		}
	}
	s.arm(until(time.Now(), s.limit, s.bodyEnd))
	n, err := s.resp.Body.Read(s.buf.B[:cap(s.buf.B)])
	s.arm(0)
	if s.x != nil {
		s.x.now = time.Time{} // that was a wait
	}
	switch {
	case err == io.EOF:
		s.bodyErr = err
		s.trailing = trailerOf(s.resp.Trailer)
	case err != nil:
		s.bodyErr = s.failure(err)
	}
	if n > 0 {
		return s.buf.B[:n], nil
	}
	if s.bodyErr == nil {
		return s.next()
	}
	return nil, s.bodyErr
}

// trailerOf lists the trailer fields that may be forwarded, nil if there are
// none.
func trailerOf(h http.Header) *Fields {
	if len(h) == 0 {
		return nil
	}
	f := fieldsOf(h)
	f.DelFunc(func(name, _ string) bool { return forbiddenTrailer(name) })
	return &f
}

func (s *h2Stream) stopSending(t *attempt, keep bool) bool {
	return s.body.src == nil || s.body.stop(t, keep)
}

// release implements source. A stream that is not complete is reset.
func (s *h2Stream) release(bool) { s.close() }

func (s *h2Stream) close() {
	s.arm(0)
	s.cancel()
	if !s.begun {
		s.conn.cc.Release()
	}
	if s.resp != nil {
		_ = s.resp.Body.Close()
	}
	s.x = nil
	s.conn.host.up.bulk.Put(s.buf)
	s.buf = nil
	if !s.over {
		s.over = true
		s.conn.giveBack()
	}
}
