// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// serveForeign has a handler that is not native answer, with a (w, r) made of
// the stream.
func (s *h2Exchange) serveForeign(h http.Handler) {
	x := &s.x
	r := x.newRequest(s.context())
	w := &h2Writer{s: s, header: make(http.Header)}
	if x.ContentLength != 0 {
		r.Body = &h2RequestBody{s: s, r: r}
		r.Trailer = announced(&x.Header)
	}
	end := w.end
	std := &standard{x: x, w: w, r: r, srv: s.f.srv, under: s}
	var hijacker *h2Hijacker
	if x.wsKey != "" && x.upgrade != "" {
		hijacker = &h2Hijacker{h2Writer: w}
		std.w, end = hijacker, func() { hijacker.finish(false) }
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", x.upgrade)
	}
	x.Record.Front = FrontStandard
	std.body.bounded = true
	x.down, x.replied = std, false
	defer func() {
		if p := recover(); p != nil {
			std.panicked(p)
		}
		if x.down = s; std.aborted {
			if s.abort(); std.hijacked {
				hijacker.finish(true)
			}
			if completed(x.Record.Termination) {
				x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
			}
		} else {
			end()
		}
		x.replied = true
	}()
	std.serveForeign(h)
}

// announced returns the keys that a request's Trailer fields announce.
func announced(f *Fields) http.Header {
	var h http.Header
	for v := range f.Values("Trailer") {
		eachItem(v, func(name string) {
			if isToken(name) && !forbiddenTrailer(name) {
				if h == nil {
					h = make(http.Header)
				}
				h[http.CanonicalHeaderKey(name)] = nil
			}
		})
	}
	return h
}

// h2RequestBody is the Body of a foreign handler's request.
type h2RequestBody struct {
	s      *h2Exchange
	r      *http.Request
	closed atomic.Bool // by whichever goroutine ends the exchange
}

func (b *h2RequestBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.s.readBody(p)
	if err != nil {
		if t := b.s.trailer(); t != nil {
			if b.r.Trailer == nil {
				b.r.Trailer = make(http.Header)
			}
			addFields(b.r.Trailer, t)
		}
	}
	return n, err
}

func (b *h2RequestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// h2Buffered is how much of a reply is held back, so that a short one goes out
// with its length.
const h2Buffered = 4 << 10

// h2Writer is the ResponseWriter of a foreign handler over a stream.
type h2Writer struct {
	s       *h2Exchange
	header  http.Header
	status  int         // 0 before WriteHeader
	frozen  http.Header // what WriteHeader found
	sent    bool        // the head has been
	buf     []byte
	written int64
	err     error
}

func (w *h2Writer) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *h2Writer) WriteHeader(status int) {
	if w.status != 0 {
		w.s.f.srv.logger().Debug("l7: superfluous WriteHeader", "status", status, "path", w.s.x.Path)
		return
	}
	if status < 100 || status > 999 {
		panic("l7: WriteHeader with status " + strconv.Itoa(status)) // as net/http does
	}
	if status < 200 && status != http.StatusSwitchingProtocols { // which HTTP/2 does not have
		f := fieldsOf(w.header)
		_ = w.s.writeInterim(&Reply{Status: status, Header: f})
		return
	}
	w.status = status
	w.frozen = w.header.Clone()
}

// Write implements [http.ResponseWriter].
func (w *h2Writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if l := w.length(); l >= 0 && w.written+int64(len(p)) > l {
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if len(w.buf)+len(p) <= h2Buffered {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.push(false); err != nil {
		return 0, err
	}
	if len(p) < h2Buffered {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.s.writeBody(p); err != nil {
		return 0, err
	}
	w.s.f.flush() // the handler may wait for what the client makes of it
	return len(p), nil
}

// WriteString saves callers a copy.
func (w *h2Writer) WriteString(s string) (int, error) { return w.Write(unsafeBytes(s)) }

// length returns what the handler says the length is, or -1.
func (w *h2Writer) length() int64 {
	if v := w.frozen.Get("Content-Length"); v != "" {
		if n, ok := parseLength(v); ok {
			return n
		}
	}
	return -1
}

// push sends the head, if it has not been, and what is held back; last says
// that nothing comes behind it.
func (w *h2Writer) push(last bool) error {
	if w.status == http.StatusSwitchingProtocols {
		return errNot101
	}
	if !w.sent {
		w.sent = true
		r := Reply{Status: w.status, ContentLength: w.length()}
		if last && r.ContentLength < 0 && bodyAllowed(w.status) && (w.s.x.asked.method != http.MethodHead || len(w.buf) > 0) && !w.trailers() {
			r.ContentLength = int64(len(w.buf))
		}
		w.guessType()
		r.Header.reset()
		for name, values := range w.frozen {
			if strings.HasPrefix(name, http.TrailerPrefix) || !isToken(name) {
				continue
			}
			for _, v := range values {
				r.Header.list = append(r.Header.list, Field{name, cleanValue(v), kindOf(name), true})
			}
		}
		if w.err = w.s.writeHead(&r); w.err != nil {
			return w.err
		}
		if _, ok := w.frozen["Date"]; ok && len(w.frozen["Date"]) == 0 {
			return w.err
		}
	}
	if len(w.buf) > 0 && w.err == nil {
		w.err = w.s.writeBody(w.buf)
		w.buf = w.buf[:0]
	}
	return w.err
}

// guessType sets a Content-Type as net/http does.
func (w *h2Writer) guessType() {
	if _, ok := w.frozen["Content-Type"]; ok || !bodyAllowed(w.status) || len(w.buf) == 0 || w.frozen.Get("Content-Encoding") != "" {
		return
	}
	w.frozen.Set("Content-Type", http.DetectContentType(w.buf))
}

// trailers reports whether a trailer may come.
func (w *h2Writer) trailers() bool {
	if len(w.frozen["Trailer"]) > 0 {
		return true
	}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// Flush implements [http.Flusher].
func (w *h2Writer) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController looks for.
func (w *h2Writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if err := w.push(false); err != nil {
		return err
	}
	return w.s.flush()
}

// SetReadDeadline is for http.ResponseController.
func (w *h2Writer) SetReadDeadline(t time.Time) error { return w.s.setReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (w *h2Writer) SetWriteDeadline(t time.Time) error { return w.s.setWriteDeadline(t) }

// EnableFullDuplex is for http.ResponseController: streams always are.
func (w *h2Writer) EnableFullDuplex() error { return nil }

// end sends what is left, with the trailer.
func (w *h2Writer) end() {
	s := w.s
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.push(true) != nil {
		s.abort()
		return
	}
	if l := w.length(); l >= 0 && w.written < l && !s.x.bodiless(w.status) {
		s.abort() // the handler promised more
		return
	}
	var f Fields
	add := func(name string, values []string) {
		for _, v := range values {
			if isToken(name) && !forbiddenTrailer(name) {
				f.list = append(f.list, Field{Name: name, Value: cleanValue(v), checked: true})
			}
		}
	}
	var names []string
	for _, v := range w.frozen["Trailer"] {
		eachItem(v, func(name string) { names = append(names, http.CanonicalHeaderKey(name)) })
	}
	for name, values := range w.header {
		if short, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(short, values)
		} else if slices.Contains(names, name) {
			add(name, values)
		}
	}
	_ = s.finish(&f)
}

// setReadDeadline bounds reads of the request body.
func (s *h2Exchange) setReadDeadline(t time.Time) error {
	s.f.deadline(t, &s.readTimer, func() {
		if s.err == nil && !s.bodyEnd {
			s.bodyErr = os.ErrDeadlineExceeded
			s.recv.wake()
		}
	}, func() { s.bodyErr = nil })
	return nil
}

// setWriteDeadline bounds writes of the reply: behind it the stream is reset.
func (s *h2Exchange) setWriteDeadline(t time.Time) error {
	s.f.deadline(t, &s.writeTimer, func() {
		if s.st.State() != h2.Closed {
			s.f.h2.Reset(s.st, h2.InternalError)
			s.lose(os.ErrDeadlineExceeded)
		}
	}, nil)
	return nil
}
