// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// serveForeign calls a handler that is not native, with a (w, r) made from the
// stream.
func (s *h2Exchange) serveForeign(h http.Handler, _ wrapping) { serveOwn(&s.x, s, h) }

func (s *h2Exchange) ownRequest(r *http.Request, _ *requestContext) {
	x := &s.x
	x.buildRequest(r, s.context())
	if x.ContentLength != 0 {
		r.Trailer = announced(&x.Header)
	}
	if n := s.head.frame.length; n >= 0 {
		r.Header.Set("Content-Length", formatInt(n))
	}
	if x.asked.method == http.MethodConnect {
		r.ContentLength = -1 // the client's side of the tunnel, for a handler that does not hijack
	}
	if s.mayHijack() {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", x.upgrade)
	}
}

func (s *h2Exchange) server() *Server { return s.f.srv }
func (s *h2Exchange) origin() *origin { return s.f.from }

// wrote sends what a handler has written, since the handler may wait for the
// client to react.
func (s *h2Exchange) wrote() { s.f.flush() }

// lastReply sends GOAWAY.
func (s *h2Exchange) lastReply() { s.f.leave() }

func (s *h2Exchange) heldBack() int { return 4 << 10 }

// setReadDeadline bounds reads of the request body.
func (s *h2Exchange) setReadDeadline(t time.Time) error {
	s.f.deadline(t, &s.readTimer, func() {
		if s.err == nil && !s.bodyEnd {
			s.bodyErr = os.ErrDeadlineExceeded
			s.recv.wake()
		}
	}, nil) // it stays in force, as in net/http
	return nil
}

// setWriteDeadline bounds writes of the reply. When it has passed, the stream is
// reset.
func (s *h2Exchange) setWriteDeadline(t time.Time) error {
	s.f.deadline(t, &s.writeTimer, func() {
		if s.st.State() != h2.Closed {
			s.f.h2.Reset(s.st, h2.InternalError)
			s.lose(os.ErrDeadlineExceeded)
		}
	}, nil)
	return nil
}
