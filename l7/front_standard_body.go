// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
	"sync/atomic"
	"time"
)

// standardBody is the state of a request body on the standard front.
type standardBody struct {
	read    int64
	ended   atomic.Bool // has been read to its end
	stopped atomic.Bool // the rest is not needed
	moved   atomic.Bool // another deadline is in force than that of readAt
	both    atomic.Bool // the limit is of the silence of both sides, under an http.Server of the host's
	own     hostDeadline
	readAt  deadline
	due     atomic.Int64 // readAt in nanoseconds of Unix time; 0 until a bound is set
	limit   atomic.Int64 // of each wait, in nanoseconds, under an http.Server of the host's; 0 means none
}

func (s *standard) readBody(p []byte) (int, error) {
	r, b := s.r, &s.body
	if r.Body == nil {
		return 0, io.EOF
	}
	if s.lent != nil {
		return s.readLent(p)
	}
	if !b.ended.Load() && s.under == nil { // a front bounds its waits itself
		limit, _ := s.bodyLimit()
		if b.moved.Swap(false) {
			b.readAt.forget()
		}
		if b.readAt.bound(time.Now(), limit, s.setReadDeadline, b.instead) && !b.readAt.at.IsZero() {
			b.due.Store(b.readAt.at.UnixNano())
		}
	}
	if b.stopped.Load() { // seen here, or the deadline is in force
		return 0, errStopped
	}
	n, err := r.Body.Read(p)
	if n == 0 && err != io.EOF && b.stopped.Load() {
		return 0, errStopped
	}
	if err != nil && err != io.EOF && b.overdue() {
		err = s.lateBody(err)
	}
	b.read += int64(n)
	if !s.lending { // otherwise any goroutine may be reading
		s.x.Record.BytesIn = b.read
	}
	if s.srv != nil && s.srv.MaxBodyBytes > 0 && b.read > s.srv.MaxBodyBytes {
		return n, &headError{http.StatusRequestEntityTooLarge, "body too long"}
	}
	if err == io.EOF || b.read == r.ContentLength {
		if !b.ended.Swap(true) && !b.readAt.at.IsZero() && !b.own.stands() {
			_ = http.NewResponseController(s.w).SetReadDeadline(time.Time{}) // or it would end the request
		}
	}
	return n, err
}

func (s *standard) setReadDeadline(t time.Time) error {
	return http.NewResponseController(s.w).SetReadDeadline(t)
}

func (b *standardBody) instead() (time.Time, bool) {
	if b.stopped.Load() {
		return past, true
	}
	return b.own.get()
}

// lateBody names the limit that has ended a read.
func (s *standard) lateBody(err error) error {
	if s.srv != nil {
		return s.srv.lateClient(s.x, err)
	}
	return timedOut("Proxy.BodyTimeout", time.Duration(s.root().body.limit.Load()), err)
}

// goOn implements downstream. Net/http sends a 100 by itself, when the body is read.
func (s *standard) goOn() error {
	switch {
	case s.lent != nil:
		if !s.lent.enter() {
			return nil // the client does not wait for this one
		}
		defer s.lent.leave()
		return s.lent.s.goOn()
	case s.under != nil:
		return s.under.goOn()
	}
	return nil
}

// boundBody bounds the waits for the body under an http.Server of the host's,
// which can only bound the body as a whole.
func (s *standard) boundBody(d time.Duration, both bool) {
	b := &s.root().body
	b.limit.Store(int64(d))
	b.both.Store(both)
}

// bodyLimit returns the limit of a wait for the body, and whether it is one of the
// silence of both sides.
func (s *standard) bodyLimit() (limit time.Duration, both bool) {
	if s.srv != nil {
		return s.srv.requestLimit(s.x), s.srv.BodyTimeout == 0
	}
	return time.Duration(s.body.limit.Load()), s.body.both.Load()
}

// keepReading lets a wait for the body of a call go on, since its reply does. Net/http
// fails a body for good at its deadline, so that is moved before.
func (s *standard) keepReading() {
	if s.lent != nil {
		if s.lent.enter() {
			s.lent.s.keepReading()
			s.lent.leave()
		}
		return
	}
	b := &s.body
	limit, both := s.bodyLimit()
	now := time.Now()
	left := time.Duration(b.due.Load() - now.UnixNano()) // less than 0 without a bound
	if !both || b.ended.Load() || left <= 0 || left >= limit {
		return
	}
	if _, ok := b.instead(); ok {
		return
	}
	limit = min(limit, longest)
	at := now.Add(limit + limit/4)
	b.due.Store(at.UnixNano())
	_ = s.setReadDeadline(at)
	if t, ok := b.instead(); ok {
		_ = s.setReadDeadline(t)
	} else if b.ended.Load() {
		_ = s.setReadDeadline(time.Time{})
	}
}

// overdue reports whether a read of the body has timed out. net/http takes that
// for an error of the connection and ends the request's context, but the client
// may still be connected.
func (b *standardBody) overdue() bool {
	at := b.due.Load()
	return at > 0 && !b.ended.Load() && !b.stopped.Load() && time.Now().UnixNano() >= at
}

// bodyMayPanic is true if a foreign handler around may have replaced the body.
func (s *standard) bodyMayPanic() bool { return s.lent != nil }
func (s *standard) rewindBody() bool   { return false }
func (s *standard) rewindable() bool   { return false }

func (s *standard) bodyReady() bool { return s.r.ContentLength == 0 }

// bodyOver reports whether no more of the body comes from the client.
func (s *standard) bodyOver() bool { return s.r.ContentLength == 0 || s.body.ended.Load() }

// unread reports whether there may be more of the request body to come on an
// HTTP/1 connection: net/http must not parse it as the next request.
func (s *standard) unread() bool {
	return s.under == nil && s.r.ProtoMajor == 1 && !s.bodyOver()
}

// beforeHead prepares for a reply that begins before the request body has been
// read.
func (s *standard) beforeHead(relayed bool) {
	if s.root() != s {
		s.beforeLentHead(relayed)
		return
	}
	s.sayLast()
	if !s.unread() {
		return
	}
	rc := http.NewResponseController(s.w)
	if relayed {
		// The body is still being forwarded. After its end net/http would read the
		// next request, so the connection has to end.
		s.w.Header().Set("Connection", "close")
		s.duplex = true
		_ = rc.EnableFullDuplex()
		return
	}
	// net/http drains the body before it sends the head, and closes the connection
	// if that takes too long or is too much.
	_ = rc.SetReadDeadline(time.Now().Add(lingerTime))
}

// stopBody interrupts a read of the body in progress. After the end of the body, and if
// there is none but what a handler of net/http has set in its place, net/http itself waits
// for the next request. It would take a deadline for the end of the connection, and cancel
// the context of every request that comes on it.
func (s *standard) stopBody() {
	if s.lent != nil {
		s.stopLent()
		return
	}
	if s.bodyOver() {
		return
	}
	s.body.stopped.Store(true)
	if s.under != nil {
		s.under.stopBody()
		return
	}
	err := http.NewResponseController(s.w).SetReadDeadline(past)
	if s.r.Body != nil && (err != nil || s.r.ProtoMajor > 1 || s.srv == nil && !isBodyOfNetHTTP(s.r.Body)) {
		_ = s.r.Body.Close()
	}
}

// isBodyOfNetHTTP reports whether b is a body as net/http's server makes them, which a
// deadline interrupts. Under an http.Server of the host's, a handler around may have set
// another in its place, which may need Close for that. To close net/http's own would end
// the reading of what the client still sends.
func isBodyOfNetHTTP(b io.ReadCloser) bool {
	t := reflect.TypeOf(b)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "net/http"
}

func (s *standard) resumeBody() {}

func (s *standard) pauseBody(bool) bool { return false }

// lingerBody discards the rest of the request body. After an early reply it
// keeps reading for a moment: a client that is still sending when the
// connection is closed might never see the reply.
func (s *standard) lingerBody() {
	if s.lent != nil || s.hijacked || !s.unread() {
		return
	}
	rc := http.NewResponseController(s.w)
	switch {
	case s.aborted: // net/http drains it before it closes the connection
		_ = rc.SetReadDeadline(past)
	case !s.duplex: // net/http drains it before the head, unless it has a length and the client has asked for the end
		if s.srv != nil {
			_ = rc.SetReadDeadline(time.Now().Add(lingerTime))
			if h := s.handed(); h != nil && s.r.Close && s.r.ContentLength > 0 && !h.hijacked.Load() {
				h.late.Store(true)
			}
		}
	case s.chunked && !s.noBody || rc.Flush() != nil:
		_ = rc.SetReadDeadline(past) // the end of the reply has not been sent yet
	default:
		_ = rc.SetReadDeadline(time.Now().Add(lingerTime))
		_, err := io.CopyN(io.Discard, s.r.Body, lingerBytes)
		if s.srv != nil && errors.Is(err, os.ErrDeadlineExceeded) { // chunks whose reading was interrupted
			if h := s.handed(); h != nil {
				_, _ = io.CopyN(io.Discard, h, lingerBytes)
			}
		}
	}
}

// shielded returns the context of a request whose body is still to come, for a handler of
// net/http, and a func that ends it. Net/http takes each failed read of the body for the end
// of the connection and cancels its own context, upon which an [http.TimeoutHandler] would
// answer 503 in place of the reply that the handler inside has. This one goes on if the read
// was interrupted, or has timed out. A context with a deadline is left as it is.
func (s *standard) shielded(h *handedConn) (context.Context, func()) {
	of := s.r.Context()
	if _, ok := of.Deadline(); ok {
		return of, func() {}
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(of))
	stop := context.AfterFunc(of, func() {
		if s.body.stopped.Load() || s.body.overdue() {
			select {
			case <-h.closed:
			case <-ctx.Done():
				return
			}
		}
		cancel(context.Cause(of))
	})
	return ctx, func() { stop(); cancel(nil) }
}

// handed returns the connection of the byte front that the embedded server has been given,
// nil under an http.Server of the host's.
func (s *standard) handed() *handedConn {
	h, _ := s.r.Context().Value(handedKey{}).(*handedConn)
	return h
}
