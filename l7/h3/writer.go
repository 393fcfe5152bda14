// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/qpack"
	"golang.org/x/net/http/httpguts"
)

// heldBack is how many bytes of a body are kept until a flush, so that a short reply has
// a length and needs one write.
const heldBack = 4 << 10

// A writer is the ResponseWriter of a stream. As in net/http, it belongs to one goroutine
// at a time; deadlines may be set by any.
type writer struct {
	s      *stream
	header http.Header

	block   bytes.Buffer // the encoded head
	enc     *qpack.Encoder
	body    []byte // not yet sent
	status  int    // of the final reply; 0 before it
	none    bool   // the reply has no body
	guess   bool   // its type is guessed, as in net/http
	length  int64  // bytes of the body as the head says; -1 if it does not
	written int64
	sent    bool  // the head has been sent
	err     error // why nothing can be sent any more
	mute    bool  // nothing is sent: the stream is going to be reset

	trailers []string // names announced by the field Trailer
	expect   expect
	own      atomic.Bool // a handler has set the write deadline
	until    time.Time   // the write deadline in force
}

// expect is the 100 that a client waits for before it sends its body. The body may be read
// in another goroutine than that of the writer: while a 100 may be due, mu guards what
// sends.
type expect struct {
	mu  sync.Mutex
	due atomic.Bool
}

// Header implements [http.ResponseWriter].
func (w *writer) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// sendContinue sends a 100 if the client waits for one and there is no reply yet. It is
// for the goroutine that reads the body, and leaves the header alone.
func (w *writer) sendContinue() {
	if !w.expect.due.Load() {
		return
	}
	w.expect.mu.Lock()
	defer w.expect.mu.Unlock()
	if w.expect.due.Swap(false) {
		w.encode(http.StatusContinue, nil)
		_ = w.send(w.takeBlock(nil))
	}
}

// WriteHeader implements [http.ResponseWriter].
func (w *writer) WriteHeader(status int) {
	switch {
	case status < 100 || status > 999:
		panic(fmt.Sprintf("h3: invalid status %d", status))
	case w.status != 0 || w.s.tunnel.taken:
		return
	case status < 200:
		w.interim(status)
		return
	case w.s.tunnel.upgrade && status/100 == 2:
		status = http.StatusNotImplemented // 200 would open the tunnel (RFC 8441, section 5)
	}
	w.expect.mu.Lock()
	w.expect.due.Store(false) // from now on nothing sends but the writer's goroutine
	w.expect.mu.Unlock()
	w.status, w.length = status, -1
	w.none = w.s.r.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
	if v := w.header["Content-Length"]; len(v) > 0 {
		if n, err := strconv.ParseUint(v[0], 10, 63); err == nil {
			w.length = int64(n)
		} else {
			w.header.Del("Content-Length")
		}
	}
	if _, ok := w.header["Date"]; !ok {
		w.Header()["Date"] = []string{w.s.c.f.date()}
	}
	w.trailers = trailerNames(w.header["Trailer"])
	_, typed := w.header["Content-Type"]
	w.guess = !typed && w.header.Get("Content-Encoding") == ""
	w.encode(status, w.header)
}

// encode encodes a head into block.
func (w *writer) encode(status int, h http.Header) {
	w.block.Reset()
	w.enc = qpack.NewEncoder(&w.block)
	w.add(":status", strconv.Itoa(status))
	for name, values := range h {
		if !connectionField(name) && !slices.Contains(w.trailers, name) && !strings.HasPrefix(name, http.TrailerPrefix) {
			w.addAll(name, values)
		}
	}
}

// connectionField reports whether HTTP/3 has no such field (RFC 9114, section 4.2).
func connectionField(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func (w *writer) addAll(name string, values []string) {
	if !httpguts.ValidHeaderFieldName(name) {
		return
	}
	lower := strings.ToLower(name)
	for _, v := range values {
		if httpguts.ValidHeaderFieldValue(v) {
			w.add(lower, v)
		}
	}
}

func (w *writer) add(name, value string) {
	_ = w.enc.WriteField(qpack.HeaderField{Name: name, Value: value}) // into memory
}

func (w *writer) interim(status int) {
	if status == http.StatusSwitchingProtocols {
		return // HTTP/3 has none (RFC 9114, section 4.5)
	}
	w.expect.mu.Lock()
	defer w.expect.mu.Unlock()
	if status == http.StatusContinue {
		w.expect.due.Store(false)
	}
	w.encode(status, w.header)
	_ = w.send(w.takeBlock(nil))
}

// takeBlock appends the encoded head as a frame.
func (w *writer) takeBlock(b []byte) []byte {
	b = appendFrame(b, frameHeaders, uint64(w.block.Len()))
	b = append(b, w.block.Bytes()...)
	w.block.Reset()
	return b
}

// Write implements [http.ResponseWriter].
func (w *writer) Write(p []byte) (int, error) {
	if w.s.tunnel.taken {
		return 0, http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.guess && len(p) > 0 {
		w.guess = false
		if !w.sent && !w.none {
			w.add("content-type", http.DetectContentType(p))
		}
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.s.r.Method == http.MethodHead:
		w.written += int64(len(p))
		return len(p), nil
	case w.none && len(p) > 0:
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.written+int64(len(p)) > w.length:
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if len(w.body)+len(p) <= heldBack {
		w.body = append(w.body, p...)
		return len(p), nil
	}
	if err := w.flush(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteString implements [io.StringWriter].
func (w *writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// Flush implements [http.Flusher].
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is Flush for [http.ResponseController].
func (w *writer) FlushError() error {
	if w.s.tunnel.taken {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.flush(nil)
}

// flush sends what is held back, and p.
func (w *writer) flush(p []byte) error {
	if w.err != nil {
		return w.err
	}
	n := len(w.body) + len(p)
	out := w.s.c.f.buffer()
	defer w.s.c.f.giveBuffer(out)
	b := (*out)[:0]
	if !w.sent {
		b = w.takeBlock(b)
		w.sent = true
	}
	if n > 0 {
		b = append(appendFrame(b, frameData, uint64(n)), w.body...)
		w.body = w.body[:0]
	}
	if len(p) > 0 && len(b)+len(p) <= cap(b) {
		b, p = append(b, p...), nil
	}
	*out = b
	if err := w.send(b); err != nil || len(p) == 0 {
		return err
	}
	return w.send(p)
}

// finish ends a reply whose handler has returned.
func (w *writer) finish() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.err == nil && w.length >= 0 && w.written < w.length && !w.none {
		w.err = errShort
	}
	if w.err != nil {
		return w.err
	}
	if !w.sent && w.length < 0 && !w.none && !w.setsNo("Content-Length") && !w.hasTrailers() {
		w.add("content-length", strconv.Itoa(len(w.body)))
	}
	if err := w.flush(nil); err != nil {
		return err
	}
	if w.none {
		return nil
	}
	return w.sendTrailers()
}

var errShort = errors.New("h3: the handler wrote less than its Content-Length")

// setsNo reports whether a handler has suppressed a field.
func (w *writer) setsNo(name string) bool {
	v, ok := w.header[name]
	return ok && len(v) == 0
}

func (w *writer) hasTrailers() bool {
	if len(w.trailers) > 0 {
		return true
	}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

func (w *writer) sendTrailers() error {
	w.block.Reset()
	w.enc = qpack.NewEncoder(&w.block)
	for _, name := range w.trailers {
		w.addAll(name, w.header[name])
	}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && httpguts.ValidTrailerHeader(http.CanonicalHeaderKey(name)) {
			w.addAll(name, values)
		}
	}
	if w.block.Len() == 0 {
		return nil
	}
	return w.send(w.takeBlock(nil))
}

// send writes to the stream, and waits while the client's windows are closed: at most
// SendTimeout for a byte, unless a handler has set a deadline.
func (w *writer) send(p []byte) error {
	still := -1 // whole quarters of the limit in which no byte was taken
	for w.err == nil && !w.mute && len(p) > 0 {
		w.renew()
		n, err := w.s.str.Write(p)
		if p = p[n:]; err == nil {
			continue
		}
		if still++; n > 0 {
			still = 0
		}
		if still >= 4 || w.own.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			w.err = err
		}
		w.until = time.Time{}
	}
	return w.err
}

// renew sets the deadline of the next write to a quarter of the limit, unless it is far
// enough away.
func (w *writer) renew() {
	limit := w.s.c.f.limits.SendTimeout
	if w.s.tunnel.taken {
		limit = w.s.c.f.limits.StreamTimeout
	}
	if limit <= 0 || w.own.Load() {
		return
	}
	if now := time.Now(); w.until.Sub(now) < limit/8 {
		w.until = now.Add(limit / 4)
		_ = w.s.str.SetWriteDeadline(w.until)
	}
}

// SetReadDeadline is for [http.ResponseController].
func (w *writer) SetReadDeadline(t time.Time) error { return w.s.str.SetReadDeadline(t) }

// SetWriteDeadline is for [http.ResponseController].
func (w *writer) SetWriteDeadline(t time.Time) error {
	w.own.Store(!t.IsZero())
	return w.s.str.SetWriteDeadline(t)
}

// EnableFullDuplex is for [http.ResponseController]: a stream always is.
func (w *writer) EnableFullDuplex() error { return nil }

// hijackWriter is a writer whose stream may become a tunnel.
type hijackWriter struct{ *writer }

// Hijack implements [http.Hijacker].
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.s.tunnel.take(w.writer)
}
