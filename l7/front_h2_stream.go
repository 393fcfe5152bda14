// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
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
	stopped  bool  // the rest of the body is not needed
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
	s.body.drop(&f.srv.pool)
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

func (s *h2Exchange) context() context.Context {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.ctx == nil {
		s.ctx = &streamContext{Context: s.f.conn.ctx}
		if s.err != nil {
			s.ctx.end(context.Canceled)
		}
	}
	return s.ctx
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
		case s.stopped:
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

// ended returns why nothing can be sent, or nil. F.mu is held.
func (s *h2Exchange) ended() error {
	switch {
	case s.err != nil:
		return s.err
	case s.f.closed:
		return net.ErrClosed
	case s.st.State() == h2.Closed || s.st.State() == h2.HalfClosedLocal:
		return errStreamOver
	}
	return nil
}

var errStreamOver = errors.New("l7: the reply has ended")

func (s *h2Exchange) writeInterim(r *Reply) error {
	f := s.f
	if r.Status == http.StatusContinue && s.x.expect { // a pump may be looking, if not
		s.x.expect = false
	}
	f.mu.Lock()
	err := s.ended()
	if err == nil {
		b := f.h2.WriteHead()
		b.Field(":status", statusCode(r.Status), false)
		f.fields(b, &r.Header)
		b.End(s.st, false)
	}
	f.mu.Unlock()
	f.flush()
	return err
}

func (s *h2Exchange) writeHead(r *Reply) error {
	if r.Local {
		s.x.lent.takeBack(s.stopBody)
	}
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := s.ended(); err != nil {
		return err
	}
	if s.x.wsKey != "" && r.Status/100 == 2 {
		r.Status = http.StatusNotImplemented // 200 would open a tunnel (RFC 8441, section 5)
	}
	s.told = true
	s.none = s.x.bodiless(r.Status) && !r.tunnel
	s.left = r.ContentLength
	b := f.h2.WriteHead()
	b.Field(":status", statusCode(r.Status), false)
	if !f.fields(b, &r.Header) && !r.undated {
		b.Field("date", time.Now().UTC().Format(http.TimeFormat), false)
	}
	if r.guessed != "" {
		b.Field("content-type", r.guessed, false)
	}
	if r.ContentLength >= 0 && r.Status >= 200 && r.Status != http.StatusNoContent && !s.x.opensTunnel(r.Status) {
		b.Field("content-length", f.number(r.ContentLength), false)
	}
	b.End(s.st, false) // finish sets END_STREAM if no body follows
	return nil
}

func statusCode(n int) string {
	if n == http.StatusOK {
		return "200"
	}
	return strconv.Itoa(n)
}

// writeBody adds p to the output, and waits while the client's windows or the
// connection are full.
func (s *h2Exchange) writeBody(p []byte) error {
	if s.none || len(p) == 0 {
		return nil
	}
	if s.left >= 0 {
		if int64(len(p)) > s.left {
			return errors.New("l7: reply body longer than its Content-Length")
		}
		s.left -= int64(len(p))
	}
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.sendData(&s.h2Sender, p, orDefault(f.srv.SendTimeout, defaultSendTimeout), s.ended)
	if err == os.ErrDeadlineExceeded {
		f.h2.Reset(s.st, h2.Cancel) // the client opens no window
	}
	if s.x.grpc {
		s.wroteAt = time.Now()
	}
	return err
}

func (s *h2Exchange) flush() error {
	s.f.flush()
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.done {
		return nil
	}
	return s.ended()
}

func (s *h2Exchange) direct(int64) directWriter { return nil }

func (s *h2Exchange) finish(trailer *Fields) error {
	f := s.f
	if s.left > 0 && !s.none {
		s.abort()
		return io.ErrUnexpectedEOF
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := s.ended(); err != nil {
		return err
	}
	s.done = true
	switch {
	case s.broken != nil: // a reply may go before (RFC 9113, section 8.1.1)
		f.h2.Reset(s.st, h2.ProtocolError)
		return nil
	case trailer == nil || trailer.Len() == 0 || s.none:
		f.h2.Finish(s.st)
		return nil
	}
	b := f.h2.WriteHead()
	f.fields(b, trailer)
	b.End(s.st, true)
	return nil
}

func (s *h2Exchange) abort() { s.reset2(h2.InternalError) }

// reset2 resets the stream, unless it has ended.
func (s *h2Exchange) reset2(code h2.Code) {
	s.f.mu.Lock()
	s.f.h2.Reset(s.st, code)
	s.f.mu.Unlock()
	s.done = true
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

// streamContext is the context of a stream. It makes a channel only if Done is
// called.
type streamContext struct {
	context.Context // of the connection, for its values

	mu    sync.Mutex
	done  chan struct{}
	err   error
	after map[*func()]struct{}
}

// Done implements [context.Context].
func (c *streamContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err implements [context.Context].
func (c *streamContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// AfterFunc saves package context a goroutine for each context below this one.
func (c *streamContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*func()]struct{})
	}
	key := &f
	c.after[key] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.after[key]
		delete(c.after, key)
		return ok
	}
}

func (c *streamContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	for f := range c.after {
		go (*f)()
	}
	c.after = nil
}
