// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// editingWriter is the ResponseWriter of a foreign handler: it runs the
// editors on the head and counts for the record.
type editingWriter struct {
	http.ResponseWriter
	s        *standard
	wrote    bool
	hijacked bool
	filtered *filteredBody // nil if the body goes as it is
}

// filteredBody has filters, which pull, change what a handler pushes.
type filteredBody struct {
	w    *io.PipeWriter
	done chan error // of the goroutine that sends what the filters make of it
}

func (w *editingWriter) WriteHeader(status int) {
	if w.wrote {
		w.ResponseWriter.WriteHeader(status) // net/http complains, with the place
		return
	}
	if isInterim(status) {
		w.writeInterim(status)
		return
	}
	w.wrote = true
	x := w.s.x
	var r Reply
	if len(x.editors) > 0 {
		h := w.Header()
		r = Reply{Status: status, ContentLength: -1, Local: true}
		r.Header.reset()
		for name, values := range h {
			if k := kindOf(name); !k.owned() && !strings.HasPrefix(name, http.TrailerPrefix) {
				for _, v := range values {
					r.Header.list = append(r.Header.list, Field{Name: name, Value: v, kind: k})
				}
			}
		}
		x.edit(&r)
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
		w.Header().Del("Content-Length") // of a body that the handler will not write
	}
	x.replied, w.s.begun = true, true
	x.Record.Status = status
	x.Record.FirstByte = reached(time.Since(x.Record.Start))
	w.ResponseWriter.WriteHeader(status)
	if len(r.filters) > 0 {
		w.startFilter(&r)
	}
}

func (w *editingWriter) Write(p []byte) (int, error) {
	if !w.wrote {
		if _, ok := w.Header()["Content-Type"]; !ok && w.Header().Get("Content-Encoding") == "" && len(p) > 0 {
			w.Header().Set("Content-Type", http.DetectContentType(p))
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.filtered != nil {
		return w.filtered.w.Write(p)
	}
	n, err := w.ResponseWriter.Write(p)
	w.s.x.Record.BytesOut += int64(n)
	return n, err
}

// startFilter begins to send the body through the filters of r.
func (w *editingWriter) startFilter(r *Reply) {
	pr, pw := io.Pipe()
	f := &filteredBody{w: pw, done: make(chan error, 1)}
	body := r.filter(pr)
	w.filtered = f
	to := flushingWriter{w}
	go func() {
		err := guard(w.s.x, "reply filter", func() error {
			_, err := io.Copy(to, body)
			return err
		})
		_ = pr.CloseWithError(err) // ends writes that nobody takes
		f.done <- err
	}()
}

// end waits until a filtered body has been sent. Whole says that the handler
// has come to its end; else the filters get an error.
func (w *editingWriter) end(whole bool) {
	f := w.filtered
	if f == nil {
		return
	}
	w.filtered = nil
	if whole {
		_ = f.w.Close()
	} else {
		_ = f.w.CloseWithError(io.ErrUnexpectedEOF)
	}
	err := <-f.done
	if p, ok := errors.AsType[*panicError](err); ok {
		x := w.s.x
		x.Record.Termination, x.Record.Err = endOf(l4.Internal, l4.PhaseData), p
	}
	if err != nil && whole {
		w.s.abort()
	}
}

// flushingWriter sends each piece that filters give at once: they know what
// they hold back.
type flushingWriter struct{ w *editingWriter }

func (f flushingWriter) Write(p []byte) (int, error) {
	n, err := f.w.ResponseWriter.Write(p)
	f.w.s.x.Record.BytesOut += int64(n)
	if err == nil {
		err = f.w.s.flush()
	}
	return n, err
}

// ReadFrom keeps sendfile and splice within reach.
func (w *editingWriter) ReadFrom(src io.Reader) (int64, error) {
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok && w.wrote && w.filtered == nil {
		n, err := rf.ReadFrom(src)
		w.s.x.Record.BytesOut += n
		return n, err
	}
	return io.Copy(struct{ io.Writer }{w}, src)
}

func (w *editingWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController looks for.
func (w *editingWriter) FlushError() error {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if w.filtered != nil {
		return nil // what the filters give is flushed as it comes
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack gives the connection to the handler.
func (w *editingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, brw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked, w.s.hijacked = true, true
		liftBounds(c)
		w.s.x.replied = true
		w.s.x.Record.Status = http.StatusSwitchingProtocols
	}
	return c, brw, err
}

// Unwrap is for http.ResponseController.
func (w *editingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// writeInterim sends an interim reply of a foreign handler, whose fields are
// those that are there so far.
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
