// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// defaultMaxBytes bounds what a probe reads from one connection.
const defaultMaxBytes = 16 << 10

// maxBytes is what a MaxBytes means.
func maxBytes(max int) int {
	switch {
	case max == 0:
		return defaultMaxBytes
	case max < 0:
		return 1 << 30
	}
	return max
}

var errTooLong = errors.New("answer longer than the bound")

// A session is the one connection of one probe. It reads no more than its
// bound, ends with its context, and turns each failure into an *Error that
// names the step. One goroutine uses it.
type session struct {
	d     *Connect
	e     balance.Endpoint
	ctx   context.Context
	raw   *bounded
	c     net.Conn      // raw, or TLS over it
	r     *bufio.Reader // of what c has to say, up to max
	in    io.LimitedReader
	stop  func() bool
	limit time.Duration // from open to the context's deadline; 0 means none
	max   int
	step  string // what is going on now
}

// mostQuoted is how many bytes of an answer an error quotes.
const mostQuoted = 60

// bounded is a connection that gives up when too much was read from it.
type bounded struct {
	net.Conn
	left int
	end  atomic.Pointer[error]  // of the first read that failed; another goroutine may read
	said atomic.Pointer[[]byte] // by the first read that did not, to quote
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.end.CompareAndSwap(nil, new(error(errTooLong)))
		return 0, errTooLong
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	if n > 0 && b.said.Load() == nil {
		said := bytes.Clone(p[:min(n, mostQuoted+1)])
		b.said.Store(&said)
	}
	if err != nil {
		b.end.CompareAndSwap(nil, &err)
	}
	return n, err
}

// open dials e; with TLS it does the handshake too. max is the bound in bytes
// of what is read; 0 means 16 KiB, negative means 1 GiB.
// The session is not nil even if err is not, and must be closed.
func (d *Connect) open(ctx context.Context, e balance.Endpoint, max int) (*session, error) {
	s, err := d.openClear(ctx, e, max)
	if err == nil && d.TLS != nil {
		err = s.secure()
	}
	return s, err
}

// openClear is open without the handshake, for protocols that ask for TLS
// in their own words.
func (d *Connect) openClear(ctx context.Context, e balance.Endpoint, max int) (*session, error) {
	max = maxBytes(max)
	s := sessionOf(ctx)
	s.d, s.e, s.max, s.step = d, e, max, "connect"
	c, err := d.dial(ctx, e)
	if err != nil {
		return s, s.fail(err)
	}
	// TLS and HTTP/2 need some more for their own: certificates, frames. The
	// exact bound is that of the reader.
	s.raw = &bounded{Conn: c, left: max + max/4 + 64<<10}
	s.use(s.raw)
	// One timer is enough: the context's own ends the reads too.
	s.stop = context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return s, nil
}

// sessionOf returns a session that only knows how long it may take.
func sessionOf(ctx context.Context) *session {
	s := &session{ctx: ctx}
	if t, ok := ctx.Deadline(); ok {
		s.limit = time.Until(t)
		// What a Checker gave is a little more than is left, by as much as the machine
		// is busy; the text of an error must not tell.
		if given, ok := ctx.Value(givenTime{}).(time.Duration); ok && given > 0 && s.limit > given-given/10 {
			s.limit = given
		}
	}
	return s
}

// givenTime is the key of a Checker's Timeout in the context of its probes.
type givenTime struct{}

func (s *session) use(c net.Conn) {
	s.c = c
	s.in = io.LimitedReader{R: c, N: int64(s.max)}
	s.r = bufio.NewReaderSize(&s.in, 1024)
}

// secure does the handshake. What was read ahead in the clear is an error:
// it would be taken for part of the protected answer.
func (s *session) secure() error {
	s.step = "TLS"
	if s.r.Buffered() > 0 {
		return s.error(CodeProtocol, "bytes before the handshake")
	}
	tc, err := s.d.secure(s.ctx, s.c, s.e)
	if err != nil {
		return s.fail(err)
	}
	s.use(tc)
	return nil
}

// close closes the connection, without TLS's close_notify: a silent peer could
// hold that up for seconds.
func (s *session) close() {
	if s.stop != nil {
		s.stop()
	}
	if s.raw != nil {
		s.raw.Close()
	}
}

// send writes b whole.
func (s *session) send(b []byte) error {
	_, err := s.c.Write(b)
	return s.fail(err)
}

// line reads one line and returns it without its line end.
func (s *session) line() (string, error) {
	var b []byte
	for {
		part, err := s.r.ReadSlice('\n')
		b = append(b, part...)
		if err == nil {
			return strings.TrimRight(string(b), "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			return "", s.fail(err)
		}
	}
}

// full fills b.
func (s *session) full(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	return s.fail(err)
}

// block reads n bytes, or fails with CodeProtocol at once if n is more than
// the session may still read.
func (s *session) block(n int) ([]byte, error) {
	if n < 0 || n > s.r.Buffered()+int(s.in.N) {
		return nil, s.tooLong()
	}
	b := make([]byte, n)
	return b, s.full(b)
}

// error returns an *Error of the current step.
func (s *session) error(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Step: s.step, Text: fmt.Sprintf(format, args...)}
}

func (s *session) tooLong() *Error {
	return s.error(CodeProtocol, "answer longer than %d bytes", s.max)
}

// cut reports whether err is due to the bound, which ended the read early.
func (s *session) cut(err error) bool {
	return errors.Is(err, errTooLong) || s.r != nil && s.in.N <= 0 && s.r.Buffered() == 0
}

// fail turns an error of the connection into an *Error of the current step; nil stays nil.
func (s *session) fail(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = s.error(CodeProtocol, "%s", printable(err.Error()))
		e.Err = err
		switch {
		case s.ctx.Err() != nil || isTimeout(err):
			e.Code, e.Text = CodeTimeout, "no answer"
		case s.cut(err):
			e.Text = s.tooLong().Text
		case isClosed(err):
			e.Code, e.Text = CodeClosed, "connection closed"
		}
	}
	if e.Code == CodeTimeout && s.limit > 0 && errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		e.Text += " within " + span(s.limit)
	}
	return e
}

// span prints d without the microseconds that differ from run to run.
func span(d time.Duration) string {
	unit := time.Millisecond
	if d >= 100*time.Millisecond {
		unit = 10 * time.Millisecond
	}
	return d.Round(unit).String()
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}
