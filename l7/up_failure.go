// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A failure is the error of a try of which the client has received nothing.
type failure struct {
	class   balance.Class
	status  int // for the client; 0 if it has disconnected
	by      l4.Cause
	phase   l4.Phase
	err     error
	unsent  bool          // no part of the request reached the server
	quiet   bool          // the connection ended before a byte of a reply
	refused bool          // the server says that it has not processed the request
	leaving bool          // and ends a connection on which it has processed others
	after   time.Duration // the wait that the server asks for

	distrust *tlsError // the server's certificate was invalid
}

// cutConnecting reports whether the server was cut before there was a connection.
func (f *failure) cutConnecting() bool {
	return f.class == balance.Canceled && f.by == l4.ServerDown
}

// noServer returns the failure for an error of Acquire. Last is the failure of
// the previous try, or nil.
func (t *attempt) noServer(err error, last *failure) *failure {
	if t.p.of != "" && t.p.Pool.Name != "" { // a Transport; the record of a Proxy, and its log, name the pool
		err = fmt.Errorf("pool %q: %w", t.p.Pool.Name, err)
	}
	f := &failure{class: balance.Canceled, status: http.StatusServiceUnavailable, by: l4.ServerAborted, phase: l4.PhaseConnect, err: err}
	switch {
	case t.x.Context().Err() != nil:
		f.phase = l4.PhaseQueue
		f.canceled(t.x)
	case errors.Is(err, balance.ErrQueueFull):
		f.by, f.phase = l4.Resource, l4.PhaseQueue
	case errors.Is(err, balance.ErrQueueTimeout):
		f.by, f.phase = l4.ServerTimeout, l4.PhaseQueue
	case errors.Is(err, context.DeadlineExceeded):
		f.by, f.phase, f.status = l4.ServerTimeout, l4.PhaseQueue, http.StatusGatewayTimeout
		name, limit := t.wholeLimit()
		f.err = &TimeoutError{name, limit, err}
	case last != nil:
		last.err = errors.Join(last.err, err)
		return last
	}
	if last != nil {
		f.err = errors.Join(last.err, f.err)
	}
	return f
}

// failed answers with the last failure.
func (t *attempt) failed(f *failure) {
	x := t.x
	x.Record.Err = errors.Join(x.Record.Err, f.err)
	if f.status == 0 && f.by == l4.Internal {
		x.Drop(endOf(f.by, f.phase))
		return
	}
	if f.status == 0 {
		x.Record.Status = statusClientClosed
		x.Drop(endOf(l4.ClientAborted, f.phase))
		return
	}
	if f.by == l4.ClientAborted || f.by == l4.ClientTimeout || f.by == l4.Denied || f.by == l4.Internal {
		x.down.mustClose()
	}
	if !t.grpcLate(f) {
		x.Error(f.status, endOf(f.by, f.phase))
	}
}

// statusClientClosed is nginx's status for a client that disconnected before
// its reply. It is never sent.
const statusClientClosed = 499

// connectFailure classifies a failed dial.
func (t *attempt) connectFailure(l *try, err error) *failure {
	f := &failure{class: balance.ConnectFailed, status: http.StatusBadGateway, by: l4.ServerAborted, phase: l4.PhaseConnect, err: err, unsent: true}
	var te *tlsError
	var cut *cutError
	switch {
	case t.x.Context().Err() != nil:
		f.canceled(t.x)
	case errors.As(err, &cut):
		f.class, f.by, f.status = balance.Canceled, l4.ServerDown, http.StatusServiceUnavailable
	case l.race != nil && l.race.lost(l):
		f.class, f.by = balance.Canceled, l4.ClientAborted
	case errors.Is(err, errConnectTimeout), errors.Is(err, context.DeadlineExceeded):
		f.class, f.by, f.status = balance.ConnectTimeout, l4.ServerTimeout, http.StatusGatewayTimeout
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.Join(os.ErrDeadlineExceeded, err)
		}
		f.err = t.late(l.deadline, "Upstream.ConnectTimeout", orDefault(t.up.ConnectTimeout, defaultConnectTimeout), err)
	case errors.As(err, &te):
		f.class = balance.TLSFailed
		if te.untrusted() {
			f.distrust = te
		}
	case balance.LocalFault(err):
		f.class, f.by, f.status = balance.Canceled, l4.Resource, http.StatusServiceUnavailable
	}
	return f
}

// canceled makes f the failure of an exchange whose context has ended: the client
// has disconnected, unless middleware of net/http has set a deadline, or has
// canceled its own context.
func (f *failure) canceled(x *Exchange) {
	f.class, f.by, f.status = balance.Canceled, l4.ClientAborted, 0
	switch {
	case errors.Is(x.Context().Err(), context.DeadlineExceeded):
		f.class, f.by, f.status = balance.Timeout, l4.ServerTimeout, http.StatusGatewayTimeout
	case x.down.present():
		f.by, f.status = l4.Killed, http.StatusBadGateway
	}
}

// panicked makes f the failure of host code that panicked: it is not retried
// and is not the server's fault.
func (f *failure) panicked() {
	f.class, f.by, f.unsent, f.quiet = balance.ClientAborted, l4.Internal, false, false
	if f.status = http.StatusInternalServerError; errors.Is(f.err, http.ErrAbortHandler) {
		f.status = 0
	}
}

// clientError marks an error on the client's side of an exchange.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// blame classifies an error that ended a try, before or during the reply: its
// cause, and the class that the pool is told. An interruption of the source takes
// precedence over the errors that its reads and writes return.
func (f *sourceEnd) blame(err error) (class balance.Class, by l4.Cause) {
	var ce *clientError
	var br *badReply
	var he *headError
	var tooLong *http.MaxBytesError // from an outer handler
	var be *BodyError               // likewise
	var pe *panicError
	late := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case errors.As(err, &pe):
		return balance.ClientAborted, l4.Internal
	case f.cutReason.Load() != nil:
		return balance.Reset, l4.ServerDown
	case f.interrupted.Load():
		return balance.ClientAborted, l4.ClientAborted
	case errors.As(err, &ce) && (errors.As(err, &he) || errors.As(err, &tooLong) || errors.As(err, &be)):
		return balance.ClientAborted, l4.Denied
	case errors.As(err, &ce) && late:
		return balance.ClientAborted, l4.ClientTimeout
	case errors.As(err, &ce):
		return balance.ClientAborted, l4.ClientAborted
	case late:
		return balance.Timeout, l4.ServerTimeout
	case errors.As(err, &br):
		return balance.Protocol, l4.ServerAborted
	}
	return balance.Reset, l4.ServerAborted
}

// failure returns an error before the reply to x as a failure.
func (f *sourceEnd) failure(x *Exchange, err error) *failure {
	class, by := f.blame(err)
	fail := &failure{class: class, status: http.StatusBadGateway, by: by, phase: l4.PhaseHeaders, err: err}
	if un, ok := errors.AsType[*unsentError](err); ok {
		fail.unsent, fail.refused, fail.leaving = true, un.told, un.leaving
	}
	switch by {
	case l4.Internal:
		fail.panicked()
	case l4.ServerDown:
		fail.status = http.StatusServiceUnavailable
		fail.err = f.cutError(err)
		fail.quiet = !f.gotHead
	case l4.ClientAborted:
		fail.aborted(x, f.interrupted.Load())
	case l4.Denied:
		fail.phase, fail.status = l4.PhaseRequest, http.StatusRequestEntityTooLarge
		if he, ok := errors.AsType[*headError](err); ok {
			fail.status = he.status
		} else if be, ok := errors.AsType[*BodyError](err); ok {
			fail.status = be.status()
		}
	case l4.ClientTimeout:
		fail.phase, fail.status = l4.PhaseRequest, http.StatusRequestTimeout
	case l4.ServerTimeout:
		fail.status = http.StatusGatewayTimeout
	case l4.ServerAborted:
		if fail.quiet = class == balance.Reset && !f.gotHead; fail.quiet && f.reused {
			fail.class = balance.Stale
		}
	}
	return fail
}

// aborted makes f the failure of an exchange that was interrupted, or whose client
// did not send its body.
func (f *failure) aborted(x *Exchange, interrupted bool) {
	if interrupted {
		if f.canceled(x); f.status == 0 {
			f.class = balance.ClientAborted
		}
		return
	}
	if f.phase, f.status = l4.PhaseRequest, 0; x.down.present() {
		f.status = http.StatusBadRequest // from an outer handler that wraps the body
	}
}

// unsentError is the error of a request that the server has not processed.
type unsentError struct {
	error
	told    bool // the server has said so, so it is reachable
	leaving bool // by a GOAWAY without an error, after it had processed others on the connection
}

func (e *unsentError) Unwrap() error { return e.error }
