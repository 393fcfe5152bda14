// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
)

// A stream is a request and its reply.
type stream struct {
	c      *conn
	str    *quic.Stream
	in     input
	r      *http.Request
	w      writer
	body   body
	tunnel tunnel
	early  bool // the request came in early data
}

// finDelay bounds the wait for the end of a request that is not expected to have a body.
// It often comes in the packet after that of the head.
const finDelay = 250 * time.Millisecond

// serve serves a stream, in its goroutine.
func (c *conn) serve(str *quic.Stream) {
	s := &stream{c: c, str: str}
	buf := c.f.inputs.Get().(*[]byte)
	s.in = input{from: str, buf: *buf}
	s.w.s, s.body.s, s.body.more = s, s, -1
	defer func() {
		if !s.tunnel.taken { // otherwise its handler may still read
			c.f.inputs.Put(buf)
		}
		if s.tunnel.cancel != nil {
			s.tunnel.cancel()
		}
		str.ReleaseStreamCredit()
	}()
	f := s.readHead()
	if f == nil {
		_ = str.SetReadDeadline(time.Time{})
		s.run()
		return
	}
	if f.whole {
		c.fail(f)
		return
	}
	if f.status == 0 && f.code != codeMessage { // there was no request
		s.reset(f.code)
		_ = c.glitch(glitchReset)
		return
	}
	s.refuse(f)
}

// readHead reads the request up to its body. A fault without a status, and not
// malformed, means that there was none.
func (s *stream) readHead() *fault {
	limit := s.c.f.sizes()
	if d := s.c.f.limits.ReadHeaderTimeout; d > 0 {
		_ = s.str.SetReadDeadline(time.Now().Add(d))
	}
	for {
		kind, n, err := s.in.frame()
		if err != nil {
			return s.noHead(err)
		}
		switch {
		case kind == frameData:
			return ofConn(codeFrameUnexpected, "DATA before HEADERS") // RFC 9114, section 4.1
		case kind == frameHeaders && limit.bytes > 0 && n > uint64(limit.bytes):
			return &fault{code: codeExcessiveLoad, reason: "head too long", status: http.StatusRequestHeaderFieldsTooLarge}
		case kind == frameHeaders:
			block, err := s.in.block(int(n))
			if err != nil {
				return s.noHead(err)
			}
			return s.parse(block, limit)
		}
		if err := s.skip(kind, n); err != nil {
			return s.noHead(err)
		}
	}
}

// skip skips a frame that is neither DATA nor HEADERS, if it may be here.
func (s *stream) skip(kind, n uint64) error {
	if f := unexpected(kind); f != nil {
		return f
	}
	if err := s.c.glitch(glitchUnknown); err != nil {
		return err
	}
	return s.in.discard(n)
}

// noHead is the fault of a stream that ends, or waits, before the end of its head.
func (s *stream) noHead(err error) *fault {
	f := new(fault)
	switch {
	case errors.As(err, &f):
		return f
	case remoteReset(err):
		return &fault{code: codeCancelled, reason: err.Error()}
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return &fault{code: codeIncomplete, reason: "the stream ended before the request"}
	}
	return &fault{code: codeRejected, reason: err.Error()} // ReadHeaderTimeout
}

// parse makes the request.
func (s *stream) parse(block []byte, limit sizes) *fault {
	var head section
	f := head.decode(block, limit)
	if f != nil && f.status != 0 {
		_ = s.c.glitch(glitchFields)
	}
	r, upgrade, bad := head.request()
	if f == nil {
		f = bad
	}
	s.r, s.tunnel.upgrade = r, upgrade
	s.tunnel.plain = f == nil && !upgrade && r.Method == http.MethodConnect
	s.fill()
	if f != nil {
		return f
	}
	if s.tunnel.upgrade || s.tunnel.plain {
		return nil
	}
	return s.frameBody()
}

// fill adds to the request what is known of the connection.
func (s *stream) fill() {
	c, r := s.c, s.r
	r.RemoteAddr = c.remoteAddr()
	r.TLS = c.tlsState()
	ctx := s.str.Context()
	if s.tunnel.upgrade || s.tunnel.plain {
		ctx = s.tunnel.context(c.qc.Context(), ctx)
	}
	s.r = r.WithContext(&requestContext{ctx, c.local})
	s.early = c.early()
}

// frameBody finds out whether there is a body.
func (s *stream) frameBody() *fault {
	r := s.r
	if (r.ContentLength == 0 || r.ContentLength < 0 && bodyUnlikely(r.Method)) && !s.in.ended() && s.in.r == s.in.w && s.in.err == nil {
		_ = s.str.SetReadDeadline(time.Now().Add(finDelay))
		_ = s.in.fill()
	}
	switch {
	case s.in.ended() && r.ContentLength > 0:
		return malformed("the body is shorter than its Content-Length") // RFC 9114, section 4.1.2
	case s.in.ended():
		r.ContentLength = 0
	case r.ContentLength != 0:
		s.body.more = r.ContentLength
		r.Body = &s.body
		s.w.expect.due.Store(strings.EqualFold(r.Header.Get("Expect"), "100-continue")) // RFC 9110, section 10.1.1
	case s.in.r != s.in.w: // more than a length of 0 says
		var bad *fault
		s.body.more = 0
		if errors.As(s.body.next(), &bad) {
			return bad
		}
	}
	return nil
}

func bodyUnlikely(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete, http.MethodTrace:
		return true
	}
	return false
}

// requestContext is the context of a request: it ends with the stream.
type requestContext struct {
	context.Context
	local net.Addr
}

// Value implements [context.Context].
func (c *requestContext) Value(key any) any {
	if key == http.LocalAddrContextKey {
		return c.local
	}
	return c.Context.Value(key)
}

// run has the Server serve the request, and ends the stream.
func (s *stream) run() {
	if s.early {
		if !s.c.f.mayBeEarly(s.r) {
			s.c.f.tooEarly.Add(1)
			s.refuse(&fault{code: codeNoError, reason: "request in early data", status: http.StatusTooEarly})
			return
		}
		s.c.f.earlyServed.Add(1)
		s.r.Header["Early-Data"] = []string{"1"} // RFC 8470, section 5.1
	}
	s.end(s.call(func(w http.ResponseWriter) { s.c.seat.ServeHTTP(w, s.r) }))
}

// refuse answers in place of the Server. A malformed request gets no reply, but a reset.
func (s *stream) refuse(f *fault) {
	if f.status == 0 {
		s.w.mute = true
		_ = s.c.glitch(glitchReset)
	} else if f.code != codeNoError {
		s.str.CancelRead(quic.StreamErrorCode(f.code))
	}
	if s.r == nil {
		s.r = &http.Request{ProtoMajor: 3, URL: new(url.URL), Header: make(http.Header)}
		s.fill()
	}
	status := f.status
	if status == 0 {
		status = http.StatusBadRequest
	}
	s.r.Body, s.r.ContentLength = http.NoBody, 0
	ok := s.call(func(w http.ResponseWriter) { s.c.seat.Refuse(w, s.r, status, f.reason) })
	if s.w.mute {
		s.reset(f.code)
		return
	}
	s.end(ok)
}

// call calls a handler. It reports whether that has returned, and not cut the reply.
func (s *stream) call(f func(w http.ResponseWriter)) (ok bool) {
	defer func() {
		if !ok {
			_ = recover() // http.ErrAbortHandler: the Server has dealt with all others
		}
	}()
	if s.tunnel.upgrade || s.tunnel.plain {
		f(hijackWriter{&s.w})
	} else {
		f(&s.w)
	}
	return true
}

// end ends the stream after the handler. Ok is false if its reply is to be cut.
func (s *stream) end(ok bool) {
	if s.tunnel.taken {
		t := tunnelConn{&s.tunnel}
		if ok {
			select {
			case <-t.done: // the connection may outlive its handler
			case <-s.c.qc.Context().Done():
			}
		} else {
			_ = t.SetLinger(0)
		}
		_ = t.Close()
		return
	}
	if !ok {
		if s.w.err != nil { // the client does not take it
			s.reset(codeCancelled)
		} else {
			s.reset(codeInternal)
		}
		return
	}
	err := s.w.finish()
	if remoteReset(context.Cause(s.str.Context())) || remoteReset(s.in.err) {
		_ = s.c.glitch(glitchReset)
	}
	switch {
	case err == errShort:
		s.reset(codeInternal)
	case err != nil:
		s.reset(codeCancelled)
	default:
		s.str.CancelRead(quic.StreamErrorCode(codeNoError)) // nothing, if it has been read to its end
		_ = s.str.Close()
		s.c.calm.served()
	}
}

// reset resets both directions.
func (s *stream) reset(c code) {
	s.str.CancelRead(quic.StreamErrorCode(c))
	s.str.CancelWrite(quic.StreamErrorCode(c))
}

// failed is the error of a read of the body: if it is the client's fault, the stream or
// the connection ends.
func (s *stream) failed(err error) error {
	var f *fault
	if errors.As(err, &f) {
		if f.whole {
			s.c.fail(f)
		} else {
			s.reset(f.code)
		}
	}
	return err
}

// remoteReset reports whether the client has reset its stream, or told us to stop.
func remoteReset(err error) bool {
	e, ok := errors.AsType[*quic.StreamError](err)
	return ok && e.Remote
}
