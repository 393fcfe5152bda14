// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"maps"
	"net/http"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// serveLocal calls a member of the pool that is a handler of this process. Its
// goroutine ends with the handler; closing the response's body cancels the
// handler's context.
func (c *caller) serveLocal(h http.Handler) (*http.Response, error) {
	// The program's context may carry an exchange, to which this request does not
	// belong.
	ctx, cancel := context.WithCancel(context.WithValue(c.ctx, carriedKey{}, (*carried)(nil)))
	pr, pw := io.Pipe()
	w := &localWriter{method: c.req.Method, header: make(http.Header), pipe: pw, head: make(chan struct{})}
	r := c.req.Clone(ctx)
	r.Host, r.RequestURI = c.x.Host, c.x.Path+c.x.Query
	r.URL.Scheme, r.URL.Host, r.RemoteAddr = "", "", "@"
	if b := c.attempt.readBody(); b != nil {
		r.Body = io.NopCloser(b)
	} else if r.Body == nil {
		r.Body = http.NoBody
	}
	lease := c.attempt.try.lease
	stop := context.AfterFunc(c.ctx, func() { _ = pw.CloseWithError(c.ended()) })
	go func() {
		defer stop()
		defer cancel()
		defer w.end(c)
		h.ServeHTTP(w, r)
	}()
	select {
	case <-w.head:
	case <-c.ctx.Done(): // the handler may run on
		return nil, c.ended()
	}
	if w.status == 0 { // it aborted without a head
		r := &c.x.Record
		return nil, &TransportError{Server: r.Server, Tries: r.Tries, Class: balance.StatusError, Termination: endOf(l4.Internal, l4.PhaseData), Err: http.ErrAbortHandler}
	}
	if w.status < 500 {
		lease.Works(w.status)
	}
	resp := &http.Response{
		StatusCode: w.status, Status: statusLine(w.status), Request: c.req,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: w.sent, ContentLength: w.length,
	}
	resp.Body = &localBody{pr, cancel}
	return resp, nil
}

type localBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *localBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// localWriter is the [http.ResponseWriter] of a handler whose response goes
// to a caller in this process.
//
// It frames the body as a server would: a reply to HEAD, or one whose status has
// no body, gets none, and a Content-Length is kept.
type localWriter struct {
	method string
	header http.Header
	sent   http.Header // the header when the head was sent
	status int         // 0 before the head
	length int64       // Content-Length; -1 if there is none
	none   bool        // no body follows
	bytes  int64
	pipe   *io.PipeWriter
	head   chan struct{} // closed at the head
}

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if checkCode(status); isInterim(status) {
		return
	}
	w.status, w.sent, w.length = status, maps.Clone(w.header), -1
	if n, ok := parseLength(w.sent.Get("Content-Length")); ok {
		w.length = n
	}
	w.none = w.method == http.MethodHead || !bodyAllowed(status)
	close(w.head)
}

func (w *localWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.method == http.MethodHead:
		return len(p), nil // as in net/http
	case w.none:
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.bytes+int64(len(p)) > w.length:
		return 0, http.ErrContentLength
	}
	n, err := w.pipe.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush implements [http.Flusher]: nothing is buffered.
func (w *localWriter) Flush() { w.WriteHeader(http.StatusOK) }

// end closes the response and the request.
func (w *localWriter) end(c *caller) {
	t := &c.attempt
	p := recover()
	if p != nil {
		c.x.Record.Termination, c.x.Record.Err = endOf(l4.Internal, l4.PhaseData), recovered(c.logger(), p, "handler", "path", c.x.Path)
		clear(w.header)
	}
	switch {
	case p == nil:
		w.WriteHeader(http.StatusOK)
	case p != http.ErrAbortHandler:
		w.WriteHeader(http.StatusInternalServerError)
	case w.status == 0:
		close(w.head)
	}
	c.x.Record.Status, c.x.Record.BytesOut = w.status, w.bytes
	t.try.outcome = balance.Outcome{Status: w.status}
	if w.status >= 500 || p != nil {
		t.try.outcome.Class = balance.StatusError
	}
	t.try.done(t.try.outcome)
	c.settle()
	if p != nil || !w.none && w.bytes < w.length {
		_ = w.pipe.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	_ = w.pipe.Close()
}
