// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

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
	s.x.noteGRPC(trailer)
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
