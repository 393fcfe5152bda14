// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// announced returns the trailer keys that a request announces.
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

// ownBody is the Body of a foreign handler's request.
type ownBody struct {
	x      *Exchange
	under  ownFront
	r      *http.Request
	turn   chan struct{} // held by the goroutine that reads, here or through the handler
	told   bool          // r has the trailer; guarded by turn
	closed atomic.Bool   // by the goroutine that ends the exchange
}

func (b *ownBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	n, err := b.under.readBody(p)
	if err != nil && !b.told {
		if t := b.x.Header.withoutOwn(b.under.trailer()); t != nil {
			b.told = true // a read behind the end must not add it again
			if b.r.Trailer == nil {
				b.r.Trailer = make(http.Header)
			}
			addFields(b.r.Trailer, t)
		}
	}
	return n, err
}

// hold keeps others from reading until the turn is given back, so that the head of the reply
// can depend on how far the body has been read. It fails if a read is in progress, which may
// wait for the client, and without a body.
func (b *ownBody) hold() bool {
	if b == nil {
		return false
	}
	select {
	case b.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

func (b *ownBody) Close() error {
	b.closed.Store(true)
	return nil
}

// ownWriter is the ResponseWriter of a foreign handler, made by the front
// itself.
//
// Once the handler has returned, the exchange below may serve another request,
// while a goroutine may still hold the writer. So it works only until the loan
// ends.
type ownWriter struct {
	loan    lent
	x       *Exchange
	under   ownFront
	header  http.Header
	frozen  http.Header // the header at WriteHeader
	buf     []byte
	written int64
	err     error
	body    *ownBody // that the head ends over HTTP/1; nil if there is none

	status   int16 // 0 before WriteHeader
	sent     bool  // the head has been sent
	duplex   bool  // it does not end the body
	over     bool  // the handler has written more than its Content-Length
	hijacked bool
}

func (w *ownWriter) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *ownWriter) WriteHeader(status int) {
	if w.loan.begin() {
		defer w.loan.end()
		w.writeHeader(status)
	}
}

func (w *ownWriter) writeHeader(status int) {
	if w.status != 0 || w.hijacked {
		w.under.logger().Debug("l7: superfluous WriteHeader", "status", status, "path", w.x.Path)
		return
	}
	checkCode(status)
	if status < 200 && status != http.StatusSwitchingProtocols { // 101 is for hijackers only
		f := fieldsOf(w.header)
		_ = w.under.writeInterim(&Reply{Status: status, Header: f})
		return
	}
	w.status = int16(status)
	w.frozen = w.header.Clone()
}

// checkCode panics as net/http does.
func checkCode(status int) {
	if status < 100 || status > 999 {
		panic("invalid WriteHeader code " + strconv.Itoa(status))
	}
}

// Write implements [http.ResponseWriter].
func (w *ownWriter) Write(p []byte) (int, error) { return w.write(p, true) }

func (w *ownWriter) write(p []byte, direct bool) (int, error) {
	if !w.loan.begin() {
		return 0, errReturned
	}
	defer w.loan.end()
	switch {
	case w.hijacked:
		return 0, http.ErrHijacked
	case w.err != nil:
		return 0, w.err
	case w.status == 0:
		w.writeHeader(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(int(w.status)) {
		return 0, http.ErrBodyNotAllowed
	}
	if l := w.length(); l >= 0 && (w.over || w.written+int64(len(p)) > l) {
		w.over = true // for good, as in net/http
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	return w.fill(p, direct)
}

// WriteString implements [io.StringWriter] without a copy.
func (w *ownWriter) WriteString(s string) (int, error) {
	return w.write(unsafeBytes(s), false)
}

// fill buffers p. It cuts a reply as the [bufio.Writer] of net/http does, so that its
// chunks are the same: only a piece that finds the buffer empty may pass it directly.
func (w *ownWriter) fill(p []byte, direct bool) (n int, err error) {
	for size := w.under.heldBack(); len(p) > size-len(w.buf); {
		m := min(len(p), size-len(w.buf))
		if direct && len(w.buf) == 0 {
			m = len(p)
			if err = w.push(p, false); err == nil {
				w.err = w.under.writeBody(p)
				err = w.err
			}
		} else {
			w.buf = append(w.buf, p[:m]...)
			err = w.push(nil, false)
		}
		if err != nil {
			return n, err
		}
		w.under.wrote()
		n, p = n+m, p[m:]
	}
	w.buf = append(w.buf, p...)
	return n + len(p), nil
}

// ReadFrom implements [io.ReaderFrom] for the sake of sendfile.
func (w *ownWriter) ReadFrom(src io.Reader) (int64, error) {
	c, ok := w.under.(*byteConn)
	if !ok {
		return w.copyFrom(src)
	}
	f, n := regularFile(src)
	if f == nil || !w.loan.begin() {
		return w.copyFrom(src)
	}
	defer w.loan.end()
	if w.status == 0 || !bodyAllowed(int(w.status)) || w.x.asked.method == http.MethodHead || n > w.length()-w.written {
		return w.copyFrom(src)
	}
	return w.readFile(c, src, f, n)
}

func (w *ownWriter) copyFrom(src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, src)
}

// readFile sends n bytes of f, which src reads, as the body or a part of it.
func (w *ownWriter) readFile(c *byteConn, src io.Reader, f *os.File, n int64) (done int64, err error) {
	if _, typed := w.frozen["Content-Type"]; !typed && !w.sent { // it is guessed by these bytes, as net/http does
		done, err = w.copyFrom(io.LimitReader(src, sniffLen))
		if n -= done; err != nil || done < sniffLen || n == 0 {
			return done, err
		}
	}
	if err := w.push(nil, false); err != nil {
		return done, err
	}
	m, err, ok := c.sendFile(f, n)
	if !ok {
		m, err = w.copyFrom(src)
		return done + m, err
	}
	w.written += m
	if l, ok := src.(*io.LimitedReader); ok {
		l.N -= m
	}
	return done + m, err
}

// length returns the Content-Length that the handler has set, or -1.
func (w *ownWriter) length() int64 {
	if v := w.frozen.Get("Content-Length"); v != "" {
		if n, ok := parseLength(v); ok {
			return n
		}
	}
	return -1
}

// push sends the head if it has not been sent, and the buffered bytes. Next is
// the piece that follows at once, and last says that none will.
func (w *ownWriter) push(next []byte, last bool) error {
	if w.status == http.StatusSwitchingProtocols && w.x.proto > 1 {
		return errNot101
	}
	if !w.sent {
		w.sent = true
		r := Reply{Status: int(w.status), ContentLength: w.length(), Local: true}
		if last && r.ContentLength < 0 && bodyAllowed(int(w.status)) && (w.x.asked.method != http.MethodHead || len(w.buf) > 0) && (w.x.proto > 1 || !w.trailers() && w.frozen.Get("Transfer-Encoding") == "") && !w.setsNo("Content-Length") {
			r.ContentLength = int64(len(w.buf))
		}
		r.guessed = w.guessType(next)
		if w.x.proto > 1 {
			r.Header = ownFields(w.frozen)
			r.undated = w.setsNo("Date")
			r.tunnel = w.x.opensTunnel(int(w.status))
		} else {
			r.own = w.frozen
			w.ownFraming(&r)
		}
		if saysClose(w.frozen) {
			w.under.lastReply()
		}
		held := w.body.hold()
		r.reading = w.body != nil && !held
		w.err = w.under.writeHead(&r)
		if held {
			<-w.body.turn
		}
		if w.err != nil {
			return w.err
		}
		if w.endsBody(&r) {
			w.body.closed.Store(true)
		}
	}
	if len(w.buf) > 0 && w.err == nil {
		w.err = w.under.writeBody(w.buf)
		w.buf = w.buf[:0]
	}
	return w.err
}

// endsBody reports whether the rest of the body of the request cannot be read any more now
// that the reply begins. Net/http reads and closes it by then if the connection goes on.
func (w *ownWriter) endsBody(r *Reply) bool {
	return w.body != nil && !w.duplex && !w.body.r.Close && !saysClose(w.frozen) &&
		(w.x.proto > 0 || r.ContentLength >= 0 || w.x.bodiless(int(w.status)))
}

// setsNo reports whether the handler has suppressed the field by a value of
// nil.
func (w *ownWriter) setsNo(name string) bool {
	v, set := w.frozen[name]
	return set && len(v) == 0
}

// guessType returns the Content-Type that net/http would add, "" for none.
func (w *ownWriter) guessType(next []byte) string {
	if _, ok := w.frozen["Content-Type"]; ok || !bodyAllowed(int(w.status)) || len(w.buf)+len(next) == 0 || w.frozen.Get("Content-Encoding") != "" || w.x.proto < 2 && w.frozen.Get("Transfer-Encoding") != "" {
		return ""
	}
	if len(w.buf) > 0 {
		next = w.buf
	}
	return http.DetectContentType(next)
}

// trailers reports whether there may be a trailer. As with net/http, a field that is set
// after WriteHeader or the first Write does not announce one.
func (w *ownWriter) trailers() bool {
	if len(w.frozen["Trailer"]) > 0 {
		return true
	}
	for name := range w.frozen {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// Flush implements [http.Flusher].
func (w *ownWriter) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *ownWriter) FlushError() error {
	if !w.loan.begin() {
		return errReturned
	}
	defer w.loan.end()
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	if err := w.push(nil, false); err != nil {
		return err
	}
	w.err = w.under.flush()
	return w.err
}

// Hijack gives the connection to the handler.
func (w *ownWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !w.loan.begin() {
		return nil, nil, errReturned
	}
	defer w.loan.end()
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	c, brw, err := w.under.takeConn(w)
	w.hijacked = err == nil
	return c, brw, err
}

// SetReadDeadline is for http.ResponseController.
func (w *ownWriter) SetReadDeadline(t time.Time) error {
	if !w.loan.begin() {
		return errReturned
	}
	defer w.loan.end()
	return w.under.setReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController.
func (w *ownWriter) SetWriteDeadline(t time.Time) error {
	if !w.loan.begin() {
		return errReturned
	}
	defer w.loan.end()
	return w.under.setWriteDeadline(t)
}

// EnableFullDuplex is for http.ResponseController: streams always are.
func (w *ownWriter) EnableFullDuplex() error {
	if !w.loan.begin() {
		return errReturned
	}
	defer w.loan.end()
	w.duplex = true
	return nil
}

// end sends what is left, with the trailer.
func (w *ownWriter) end() {
	if w.hijacked {
		return
	}
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	if w.x.proto > 1 && !w.sent && w.written == 0 && w.length() > 0 && !w.x.bodiless(int(w.status)) { // not even the head, as with net/http
		w.under.abort()
		return
	}
	if w.push(nil, true) != nil {
		w.under.abort()
		return
	}
	if l := w.length(); l >= 0 && (w.over || w.written < l) && !w.x.bodiless(int(w.status)) {
		if w.written < l && (w.x.proto > 1 || w.frozen.Get("Transfer-Encoding") == "") {
			w.under.abort() // the handler wrote less than it announced
			return
		}
		if w.x.proto < 2 {
			w.under.lastReply() // as net/http: the handler has not sent what it meant to
		}
	}
	f := trailersOf(w.frozen, w.header)
	_ = w.under.finish(&f)
}

// ownFields lists the fields that a foreign handler has set for the reply, sorted
// by name, without its trailer and connection fields.
func ownFields(h http.Header) Fields {
	return Fields{list: appendOwnFields(make([]Field, 0, len(h)+2), h)}
}

// appendOwnFields appends what ownFields lists.
func appendOwnFields(list []Field, h http.Header) []Field {
	n := len(list)
	list = appendFieldsOf(list, h)
	own := slices.DeleteFunc(list[n:], func(fd Field) bool { return strings.HasPrefix(fd.Name, http.TrailerPrefix) })
	return list[:n+len(own)]
}

// saysClose reports whether a foreign handler has set Connection: close.
func saysClose(h http.Header) (yes bool) {
	for _, v := range h["Connection"] {
		eachItem(v, func(item string) { yes = yes || equalFold(item, "close") })
	}
	return yes
}

// trailersOf lists the trailer that a foreign handler has set, sorted by name: fields that
// the head has announced, and those with [http.TrailerPrefix].
func trailersOf(head, now http.Header) (f Fields) {
	add := func(name string, values []string) {
		for _, v := range values {
			if isToken(name) && !forbiddenTrailer(name) {
				f.list = append(f.list, Field{Name: name, Value: cleanValue(v), checked: true})
			}
		}
	}
	for _, v := range head["Trailer"] {
		eachItem(v, func(name string) { name = http.CanonicalHeaderKey(name); add(name, now[name]) })
	}
	for name, values := range now {
		if short, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(short, values)
		}
	}
	slices.SortStableFunc(f.list, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return f
}
