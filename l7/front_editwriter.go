// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// editingWriter is the ResponseWriter of a foreign handler. It runs the editors
// on the head and counts bytes for the record.
type editingWriter struct {
	http.ResponseWriter
	s        *standard
	lent     *carried
	refused  error         // why the handler's writes are dropped; nil if they are not
	taken    *handedConn   // the hijacked connection; nil if none was, or it is not ours
	filtered *filteredBody // nil if no filter changes the body
	held     *heldBody     // written, and held back until the type can be guessed; nil if nothing is
	wrote    bool
	hijacked bool
	out      bool // net/http has sent the head
	duplex   bool // the handler has called EnableFullDuplex
}

// A heldBody is the beginning of a body, and the fields at the first write.
type heldBody struct {
	early  []byte
	header http.Header
}

// Header implements [http.ResponseWriter]. Once the handler has returned, the
// fields belong to the server.
func (w *editingWriter) Header() http.Header {
	if w.lent.over() {
		return make(http.Header)
	}
	return w.ResponseWriter.Header()
}

// WriteHeader implements [http.ResponseWriter].
func (w *editingWriter) WriteHeader(status int) {
	if w.lent.enter() {
		defer w.lent.leave()
		w.writeHeader(status)
	}
}

func (w *editingWriter) writeHeader(status int) {
	w.bypass()
	if w.held != nil {
		_ = w.release()
	}
	if w.wrote {
		w.ResponseWriter.WriteHeader(status) // net/http logs the caller
		return
	}
	checkCode(status) // before the editors see it
	if isInterim(status) {
		w.writeInterim(status)
		return
	}
	w.wrote = true
	if w.s.lent == nil {
		w.s.sayLast()
	}
	w.lent.collect()
	x := w.s.x
	var r Reply
	if len(x.editors) > 0 {
		h := w.ResponseWriter.Header()
		r = Reply{Status: status, ContentLength: -1, Local: true}
		if n, ok := parseLength(h.Get("Content-Length")); ok {
			r.ContentLength = n
		}
		w.lent.origin(&r)
		r.Header.reset()
		for name, values := range h {
			if k := kindOf(name); !k.owned() && !strings.HasPrefix(name, http.TrailerPrefix) {
				for _, v := range values {
					r.Header.list = append(r.Header.list, Field{Name: name, Value: v, kind: k})
				}
			}
		}
		if err := x.edit(&r); err != nil {
			w.refuse(err)
			return
		}
		if bad := r.unsendable(); bad != nil {
			x.Record.Err, x.Record.Termination = bad, endOf(l4.Internal, l4.PhaseHeaders)
			r.Status = http.StatusInternalServerError
		}
		status = r.Status
		if r.Header.changed() {
			maps.DeleteFunc(h, func(name string, _ []string) bool {
				return !kindOf(name).owned() && !strings.HasPrefix(name, http.TrailerPrefix)
			})
			addFields(h, &r.Header)
		}
		if len(r.filters) > 0 && !x.bodiless(status) {
			h.Del("Content-Length")
		} else {
			r.filters = nil
		}
	}
	if x.Method == http.MethodHead && x.asked.method != http.MethodHead {
		w.ResponseWriter.Header().Del("Content-Length") // the handler's body is dropped
	}
	x.replied, w.s.begun = true, true
	x.Record.Status = status
	if x.Record.FirstByte == 0 {
		x.Record.FirstByte = reached(time.Since(x.Record.Start))
	}
	if up := w.s.lent; up != nil {
		r := Reply{Status: status, Local: true}
		w.lent.origin(&r)
		up.tell(x, &r)
	}
	w.ResponseWriter.WriteHeader(status)
	if len(r.filters) > 0 {
		w.startFilter(&r)
	}
}

// bypass is called before the first write to w. While a native handler inside continues
// the exchange, the writer is a handler's further inside that has got hold of w: then the
// reply is what it writes to w, and that of the native handler is dropped.
func (w *editingWriter) bypass() {
	if t := w.s.through; t != nil && !w.s.x.replied {
		t.bypassed = true
	}
}

// refuse answers 502 in place of a reply that an editor has refused.
func (w *editingWriter) refuse(err error) {
	w.wrote, w.refused = true, err
	maps.DeleteFunc(w.ResponseWriter.Header(), func(name string, _ []string) bool { return kindOf(name) != kindConnection })
	w.s.x.refuseReply(err)
	w.lent.refuse()
}

func (w *editingWriter) Write(p []byte) (int, error) {
	if !w.lent.enter() {
		return 0, errReturned
	}
	defer w.lent.leave()
	if !w.wrote {
		w.bypass()
		if w.guesses() {
			return w.hold(p)
		}
		w.writeHeader(http.StatusOK)
	}
	return w.pass(p)
}

// WriteString implements [io.StringWriter] without a copy. What goes to net/http as
// it is goes as a string, which it cuts into other chunks.
func (w *editingWriter) WriteString(s string) (int, error) {
	if !w.lent.enter() {
		return 0, errReturned
	}
	defer w.lent.leave()
	to, ok := w.ResponseWriter.(io.StringWriter)
	if !ok || w.s.through != nil || w.filtered != nil || w.refused != nil {
		return w.Write(unsafeBytes(s))
	}
	if !w.wrote {
		w.bypass()
		if w.guesses() {
			return w.hold(unsafeBytes(s))
		}
		w.writeHeader(http.StatusOK)
		if w.s.through != nil || w.filtered != nil || w.refused != nil {
			return w.pass(unsafeBytes(s))
		}
	}
	w.drains()
	n, err := to.WriteString(s)
	w.s.x.Record.BytesOut += int64(n)
	w.sent(false)
	return n, err
}

// pass writes to the body, after the head.
func (w *editingWriter) pass(p []byte) (int, error) {
	switch t := w.s.through; {
	case w.refused != nil:
		return 0, w.refused
	case t != nil && !t.bypassed:
		return t.write(p)
	}
	if w.filtered != nil {
		return w.filtered.w.Write(p)
	}
	w.drains()
	n, err := w.ResponseWriter.Write(p)
	w.s.x.Record.BytesOut += int64(n)
	w.sent(false)
	return n, err
}

// sniffLen is how many bytes of a body net/http looks at to guess its type.
const sniffLen = 512

// guesses reports whether the type of the body must be guessed before the
// editors see the head. Without editors net/http does it.
func (w *editingWriter) guesses() bool {
	if len(w.s.x.editors) == 0 {
		return false
	}
	if w.held != nil {
		return true
	}
	h := w.ResponseWriter.Header()
	_, typed := h["Content-Type"]
	return !typed && h.Get("Content-Encoding") == "" && h.Get("Transfer-Encoding") == ""
}

// hold buffers writes until there is enough to guess by.
func (w *editingWriter) hold(p []byte) (int, error) {
	if w.held == nil {
		w.held = &heldBody{make([]byte, 0, sniffLen), w.ResponseWriter.Header().Clone()}
		if w.held.header == nil {
			w.held.header = make(http.Header)
		}
	}
	held := w.held
	if n, ok := parseLength(held.header.Get("Content-Length")); ok && int64(len(held.early)+len(p)) > n {
		if err := w.release(); err != nil {
			return 0, err
		}
		return w.pass(p) // net/http refuses it
	}
	if held.early = append(held.early, p...); len(held.early) < sniffLen {
		return len(p), nil
	}
	if err := w.release(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// release sends the head as it was at the first write, and the buffered bytes.
// Fields set since then may be a trailer.
func (w *editingWriter) release() error {
	h := w.ResponseWriter.Header()
	since, held := maps.Clone(h), w.held
	maps.DeleteFunc(since, func(name string, values []string) bool { return slices.Equal(held.header[name], values) })
	clear(h)
	maps.Copy(h, held.header)
	w.held = nil
	if len(held.early) > 0 {
		h.Set("Content-Type", http.DetectContentType(held.early))
	}
	w.writeHeader(http.StatusOK)
	maps.Copy(h, since)
	_, err := w.pass(held.early)
	return err
}

// open sends the head if it has not been sent.
func (w *editingWriter) open() error {
	switch {
	case w.held != nil:
		return w.release()
	case !w.wrote:
		w.writeHeader(http.StatusOK)
	}
	return nil
}

// ReadFrom implements [io.ReaderFrom] for the sake of sendfile. Any other
// source may block between pieces, so it is copied piece by piece.
func (w *editingWriter) ReadFrom(src io.Reader) (int64, error) {
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok && isFile(src) {
		if !w.lent.enter() {
			return 0, errReturned
		}
		defer w.lent.leave()
		if w.wrote && w.refused == nil && w.filtered == nil {
			w.drains()
			n, err := rf.ReadFrom(src)
			w.s.x.Record.BytesOut += n
			w.sent(true)
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{w}, src)
}

func isFile(src io.Reader) bool {
	if l, ok := src.(*io.LimitedReader); ok {
		src = l.R
	}
	_, ok := src.(*os.File)
	return ok
}

// Flush implements [http.Flusher].
func (w *editingWriter) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *editingWriter) FlushError() error {
	if !w.lent.enter() {
		return errReturned
	}
	defer w.lent.leave()
	if !w.wrote {
		w.bypass()
	}
	if err := w.open(); err != nil {
		return err
	}
	if t := w.s.through; t != nil && !t.bypassed {
		return t.flush()
	}
	if w.filtered != nil {
		return nil // filtered bytes are flushed as they come
	}
	w.drains()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.sent(true)
	return err
}

// Hijack gives the connection to the handler.
func (w *editingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !w.lent.enter() {
		return nil, nil, errReturned
	}
	defer w.lent.leave()
	status := http.StatusSwitchingProtocols
	if r := w.lent.switches(); r != nil {
		w.lent.collect()
		if status = r.Status; len(w.s.x.editors) > 0 {
			if err := w.s.x.edit(r); err != nil {
				w.refuse(err)
				return nil, nil, err
			}
			r.Status = status
		}
		if up := w.s.lent; up != nil {
			up.switchTo(w.s.x, r)
		}
	}
	c, brw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked, w.s.hijacked = true, true
		liftBounds(c)
		w.s.x.replied = true
		w.s.x.Record.Status = status
		// The handler around this one may have taken it from net/http, down to the TLS
		// connection. What is below that was never handed over.
		if h := handedOf(c); h != nil && h.tracked() && h.srv.MaxConns <= 0 {
			w.taken, c = h, h.bare(c)
		}
	}
	return c, brw, err
}

// SetReadDeadline is for http.ResponseController. It replaces the server's own
// bound for the body.
func (w *editingWriter) SetReadDeadline(t time.Time) error {
	if !w.lent.enter() {
		return errReturned
	}
	defer w.lent.leave()
	own := &w.s.root().body.own
	own.set(t) // first, since a read of the body may be about to set another
	err := http.NewResponseController(w.ResponseWriter).SetReadDeadline(t)
	if err != nil {
		own.clear()
	}
	return err
}

// CloseNotify implements [http.CloseNotifier], which gin needs.
func (w *editingWriter) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.s.context(), func() { gone <- true })
	return gone
}

// Unwrap is for http.ResponseController.
func (w *editingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// writeInterim sends an interim reply of a foreign handler with the fields set
// so far.
func (w *editingWriter) writeInterim(status int) {
	x, h := w.s.x, w.Header()
	if !x.editsInterim() {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	r := Reply{Status: status, ContentLength: -1, Local: true, Header: fieldsOf(h)}
	if x.editInterim(&r) != nil {
		return
	}
	saved := maps.Clone(h)
	clear(h)
	addFields(h, &r.Header)
	w.ResponseWriter.WriteHeader(status)
	clear(h)
	maps.Copy(h, saved)
}
