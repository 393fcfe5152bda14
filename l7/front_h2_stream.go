// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// h2Exchange is the client's side of an exchange over a stream. The fields from
// mu on are guarded by the mu of its connection; the rest belongs to the
// goroutine that serves it.
type h2Exchange struct {
	unbounded
	x Exchange // cleared but for its memory before it is used again
	h2Use
}

// An h2Use is what an h2Exchange holds for one stream.
type h2Use struct {
	f    *h2Front
	head h2Head

	none bool  // the reply has no body
	left int64 // bytes left of the reply's Content-Length; -1 without one
	told bool  // the head of the reply has been written
	done bool  // the whole reply has been written

	h2Sender
	body     h2Inbox
	got      int64 // bytes of the body received
	read     int64 // bytes of the body read
	bodyEnd  bool  // the whole body has been received
	awaited  bool  // it was read before it came
	stopped  bool  // the rest of the body is not needed
	paused   bool  // it is not to be read now
	trailing *Fields
	broken   error // what is malformed about the request: a reply ends with a reset; nil if nothing is
	err      error // why the stream has ended early
	byClient bool  // the client has ended it
	bodyErr  error // after a read deadline set by a handler
	recv     wait
	wroteAt  time.Time // of a gRPC call: when a part of its reply was last written
	// Of the deadlines set by a handler; nil if there are none.
	readTimer, writeTimer *time.Timer
	ctx                   *streamContext // nil until needed

	taken *h2Hijacked // the stream as hijacked by a handler; nil if it was not

	upMu sync.Mutex
	up   interrupter // to be interrupted when the client disconnects
	gone bool
}

// serve runs the handler tree.
func (s *h2Exchange) serve() {
	returned := false
	defer func() {
		if !returned { // the handler has ended its goroutine
			s.x.Record.Termination, s.x.Record.Err = endOf(l4.Internal, l4.PhaseData), errNoReturn
			f := s.f
			s.finishExchange()
			f.flush()
		}
	}()
	s.run()
	returned = true
	s.finishExchange()
}

func (s *h2Exchange) run() {
	x := &s.x
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
	}()
	s.f.mu.Lock()
	gone := s.err != nil
	s.f.mu.Unlock()
	switch {
	case gone: // the client has reset the stream already
		x.replied = true
	case s.head.malformed != "":
		x.Record.Err = bad(s.head.malformed)
		s.broken = x.Record.Err
		x.Error(http.StatusBadRequest, endOf(l4.Denied, l4.PhaseRequest))
	case s.head.refused != nil:
		x.Record.Err = s.head.refused
		x.Error(s.head.refused.status, endOf(l4.Denied, l4.PhaseRequest))
	case s.f.srv.misdirects(x, &s.f.hosts):
		x.Error(http.StatusMisdirectedRequest, endOf(l4.Denied, l4.PhaseRequest))
	default:
		s.f.srv.announces(x)
		Serve(s.f.srv.handler(), x)
		x.mustReply()
	}
}

// panicked ends an exchange whose handler panicked: with a reply if none has
// begun, else by resetting the stream.
func (s *h2Exchange) panicked(p any) {
	x := &s.x
	x.Record.Err = recovered(s.logger(), p, "handler", "path", x.Path)
	if s.told || s.done || p == http.ErrAbortHandler {
		x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
		x.replied = true
		s.abort()
		return
	}
	x.failed500()
}

func (s *h2Exchange) logger() *slog.Logger { return s.f.srv.logger() }
func (s *h2Exchange) observed() bool       { return s.f.srv.OnDone != nil }

// finishExchange ends the stream, completes the record and releases everything.
func (s *h2Exchange) finishExchange() {
	f, x := s.f, &s.x
	x.lent.takeBack(s.stopBody)
	if !s.done {
		s.abort() // the handler wrote less than it announced
	}
	f.mu.Lock()
	if s.err != nil && completed(x.Record.Termination) && s.byClient {
		x.Record.Termination = endOf(l4.ClientAborted, l4.PhaseData)
	}
	if x.Record.Err == nil {
		x.Record.Err = s.err // how the client ended it
	}
	f.mu.Unlock()
	if t := &x.Record.Termination; t.Cause == l4.ClientAborted && f.srv.cutting.Load() {
		t.Cause = l4.Killed
	}
	f.srv.ended(x)
	f.mu.Lock()
	if s.ctx != nil {
		s.ctx.end(context.Canceled)
	}
	for _, t := range [...]**time.Timer{&s.readTimer, &s.writeTimer} {
		if *t != nil {
			(*t).Stop()
			*t = nil
		}
	}
	f.h2.Consume(s.st, s.body.drop(&f.srv.pool))
	s.linger()
	f.srv.serving.Add(-1)
	f.regrant()
	f.h2.Reset(s.st, h2.NoError) // stops the rest of the request body (RFC 9113, section 8.1)
	f.h2.Free(s.st)
	if f.h2.Open() == 0 {
		if f.between && f.conn.state.is(stateBusy) {
			f.conn.goIdle()
		}
		f.wakeReader()
	}
	f.mu.Unlock()
	s.recycle()
}

// recycle makes s ready for another stream. Pooled exchanges hold no channels.
func (s *h2Exchange) recycle() {
	srv := s.f.srv
	s.x.clear()
	s.x.down = nil
	s.h2Use = h2Use{}
	srv.streams.Put(s)
}

// receive adds a piece of the body. F.mu is held, as in the methods below.
func (s *h2Exchange) receive(ev *h2.Event, now time.Time) error {
	n := len(ev.Data)
	s.got += int64(n)
	switch {
	case s.head.frame.length >= 0 && s.got > s.head.frame.length:
		return s.breakOff("the body is longer than its Content-Length", now)
	case s.stopped || s.err != nil:
		s.f.h2.Consume(ev.Stream, int64(n))
	default:
		s.body.put(ev.Data, &s.f.srv.pool)
	}
	s.recv.wake()
	if ev.End {
		return s.endBody(now)
	}
	return nil
}

// endBody is called when the whole body has been received.
func (s *h2Exchange) endBody(now time.Time) error {
	s.bodyEnd = true
	if want := s.head.frame.length; want >= 0 && s.got != want {
		return s.breakOff("the body is shorter than its Content-Length", now)
	}
	s.recv.wake()
	return nil
}

// breakOff resets a stream whose request is malformed. A returned error ends
// the connection.
func (s *h2Exchange) breakOff(reason string, now time.Time) error {
	s.lose(bad(reason))
	return s.f.h2.Break(s.st, now)
}

// reset ends the stream after RST_STREAM from the client, or from us because of the
// client.
func (s *h2Exchange) reset(ev *h2.Event) {
	if ev.ByUs {
		s.lose(bad("HTTP/2: " + ev.Reason))
	} else {
		s.lose(errStreamReset)
	}
}

// lose ends the stream under the goroutine that serves it.
func (s *h2Exchange) lose(err error) {
	if s.err == nil {
		s.err, s.byClient = err, true
	}
	s.recv.wake()
	s.send.wake()
	if s.ctx != nil {
		s.ctx.end(context.Canceled)
	}
	s.upMu.Lock()
	s.gone = true
	if s.up != nil {
		s.up.interrupt()
	}
	s.upMu.Unlock()
}

func (s *h2Exchange) request() *http.Request {
	return s.x.newRequest(s.context())
}

// goOn implements downstream.
func (s *h2Exchange) goOn() error {
	if !s.x.expect || s.told {
		return nil
	}
	s.x.expect = false
	return s.writeInterim(&Reply{Status: http.StatusContinue})
}

func (s *h2Exchange) readBody(p []byte) (int, error) {
	f, x := s.f, &s.x
	if err := s.goOn(); err != nil {
		return 0, err
	}
	var wait time.Duration
	f.mu.Lock()
	for {
		switch {
		case s.stopped || s.paused:
			f.mu.Unlock()
			return 0, errStopped
		case len(s.body.bufs) > 0:
			n := s.take(p)
			over := f.srv.MaxBodyBytes > 0 && s.read > f.srv.MaxBodyBytes
			update := len(f.h2.Out) > 0
			f.mu.Unlock()
			if x.down == downstream(s) { // otherwise any goroutine may be reading
				x.Record.BytesIn = s.read
			}
			if over {
				return n, &headError{http.StatusRequestEntityTooLarge, "body too long"}
			}
			if update {
				f.flush()
			}
			return n, nil
		case s.err != nil || s.bodyErr != nil || s.broken != nil:
			err := errors.Join(s.err, s.bodyErr, s.broken)
			f.mu.Unlock()
			return 0, err
		case s.bodyEnd:
			f.mu.Unlock()
			return 0, io.EOF
		case len(f.h2.Out) > 0 && !f.writing: // the client may be waiting for output
			f.mu.Unlock()
			f.flush()
			f.mu.Lock()
			continue
		}
		if !s.awaited { // see awaitBody of byteConn
			s.awaited = true
			f.mu.Unlock()
			f.c.AckNow()
			f.mu.Lock()
			continue
		}
		if wait == 0 {
			wait = f.srv.requestLimit(x)
		}
		if !f.sleepFor(&s.recv, wait) {
			if wait = s.silence(f.srv.requestLimit(x)); wait > 0 {
				continue
			}
			f.mu.Unlock()
			return 0, f.srv.lateClient(x, os.ErrDeadlineExceeded)
		}
	}
}

// silence returns how much is left of the limit of a call since its reply went on, 0
// or less if nothing is. F.mu is held.
func (s *h2Exchange) silence(limit time.Duration) time.Duration {
	if s.wroteAt.IsZero() || s.f.srv.BodyTimeout != 0 {
		return 0
	}
	return limit - time.Since(s.wroteAt)
}

// take copies received bytes. F.mu is held.
func (s *h2Exchange) take(p []byte) (n int) {
	for n < len(p) {
		m := copy(p[n:], s.body.first())
		if m == 0 {
			break
		}
		n += m
		s.body.skip(m, &s.f.srv.pool)
	}
	s.read += int64(n)
	s.f.h2.Consume(s.st, int64(n))
	return n
}

func (s *h2Exchange) bodyMayPanic() bool { return false }
func (s *h2Exchange) rewindBody() bool   { return false }
func (s *h2Exchange) rewindable() bool   { return false }

func (s *h2Exchange) bodyReady() bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.bodyEnd
}

func (s *h2Exchange) stopBody() {
	s.f.mu.Lock()
	s.stopped = true
	s.recv.wake()
	s.f.mu.Unlock()
}

func (s *h2Exchange) pauseBody(on bool) bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.paused = on; on {
		s.recv.wake()
	}
	return true
}

// resumeBody discards the rest of the body as it comes.
func (s *h2Exchange) resumeBody() {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.h2.Consume(s.st, s.body.drop(&f.srv.pool))
}

func (s *h2Exchange) trailer() *Fields {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.trailing
}

func (s *h2Exchange) limits() (clientLimits, bool) { return s.f.srv.clientLimits(), true }
func (s *h2Exchange) parker() *l4.Parker           { return nil }
func (s *h2Exchange) probe()                       {} // PING does it

// mustClose does nothing: unlike an HTTP/1 connection, the stream ends by itself.
func (s *h2Exchange) mustClose() {}

func (s *h2Exchange) attach(u interrupter) {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	s.up = u
	if s.gone {
		u.interrupt()
	}
}

func (s *h2Exchange) detach() bool {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	s.up = nil
	return true
}

func (s *h2Exchange) session(need bool) usage {
	c := s.f.conn
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if need && c.owns == nil {
		c.owns = new(session)
	}
	return usage{c.owns, s.st.ID == 1}
}
