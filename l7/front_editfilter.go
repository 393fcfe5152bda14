// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"

	"github.com/penstock-lb/penstock/l4"
)

// filteredBody connects a handler, which writes, to filters, which read.
type filteredBody struct {
	w    *io.PipeWriter
	done chan error // of the goroutine that sends the filtered body
}

// startFilter starts sending the body through the filters of r.
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
		_ = pr.CloseWithError(err) // ends writes that are not read
		f.done <- err
	}()
}

// end waits until a filtered body has been sent. Whole says that the handler
// has returned normally; otherwise the filters get an error.
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

// flushingWriter flushes each piece that filters return: they buffer by
// themselves what they need to.
type flushingWriter struct{ w *editingWriter }

func (f flushingWriter) Write(p []byte) (int, error) {
	n, err := f.w.ResponseWriter.Write(p)
	f.w.s.x.Record.BytesOut += int64(n)
	if err == nil {
		err = f.w.s.flush()
	}
	return n, err
}
