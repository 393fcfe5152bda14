// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/penstock-lb/penstock/l4"
)

// The host's code may panic: a handler, a callback, a filter, a dialer. Then
// one request, or one connection, ends. In the goroutine of the exchange the
// front recovers; other goroutines have a recover of their own, and the panic
// becomes an error of the exchange.

// A panicError is a recovered panic. It has been logged.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("l7: panic: %v", e.value) }

// Unwrap returns the value of the panic if it is an error, such as
// [http.ErrAbortHandler].
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// recovered returns a panic as an error and logs it, with the stack of the
// calling goroutine, unless it is [http.ErrAbortHandler].
func recovered(log *slog.Logger, p any, where string, attrs ...any) *panicError {
	if p != http.ErrAbortHandler {
		defer func() { _ = recover() }() // the logger is the host's code, too
		log.Error("l7: "+where+" panicked", append(attrs, "panic", p, "stack", string(debug.Stack()))...)
	}
	return &panicError{p}
}

// errNoReturn is the error of a handler that has called [runtime.Goexit], as
// FailNow of a test does.
var errNoReturn = errors.New("l7: handler ended its goroutine")

// guard calls f and returns its error, or its panic as an error.
func guard(x *Exchange, where string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(x.down.logger(), p, where, "path", x.Path)
		}
	}()
	return f()
}

// A guardedReader reads from a host's filter in a goroutine that may have no
// recover.
type guardedReader struct {
	x *Exchange
	r io.Reader
}

func (g *guardedReader) Read(p []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err = 0, recovered(g.x.down.logger(), p, "request body", "path", g.x.Path)
		}
	}()
	return g.r.Read(p)
}

// guardedBody is the request body for a goroutine that does not recover.
func (x *Exchange) guardedBody() io.Reader {
	if len(x.filters) == 0 && !x.down.bodyMayPanic() {
		return bodyReader{x}
	}
	return &guardedReader{x, x.Body()}
}

// failed500 answers an exchange whose handler has panicked before a reply was
// sent.
func (x *Exchange) failed500() {
	x.editors, x.replied = x.editors[:0], false
	x.Error(http.StatusInternalServerError, endOf(l4.Internal, l4.PhaseRequest))
}

// errorPage calls ErrorPage. If it panics, there is no page.
func (x *Exchange) errorPage(status int) (h *Fields, body string, ok bool) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			panic(p)
		} else if p != nil {
			recovered(x.down.logger(), p, "ErrorPage", "path", x.Path, "status", status)
			h, body, ok = nil, "", false
		}
	}()
	h, body = x.ErrorPage(x, status)
	return h, body, true
}
