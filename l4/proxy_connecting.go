// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"sync"
)

// A cutError says that a server was cut: its pool called Cut while it was connected to.
type cutError struct{ reason string }

func (e *cutError) Error() string { return "l4: " + e.reason }

func isCut(err error) bool {
	_, ok := errors.AsType[*cutError](err)
	return ok
}

// connecting is the context of a try to connect to a server. It ends when the server is
// cut. That costs nothing until code waits: only then Done is called. Its methods, except
// cut, are for one goroutine.
//
//	begin   cut ends the try
//	over    cut is for the relay, which has begun
type connecting struct {
	context.Context

	mu     sync.Mutex
	cancel context.CancelCauseFunc // nil until Done is called
	lost   error                   // of the server; nil as long as it is there
	done   bool                    // the relay has begun
}

// begin begins a try within ctx.
func (w *connecting) begin(ctx context.Context) *connecting {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Context, w.cancel, w.lost = ctx, nil, nil
	return w
}

// Done implements [context.Context].
func (w *connecting) Done() <-chan struct{} {
	w.mu.Lock()
	waits := w.cancel != nil
	w.mu.Unlock()
	if !waits {
		ctx, cancel := context.WithCancelCause(w.Context)
		w.mu.Lock()
		w.Context, w.cancel = ctx, cancel
		lost := w.lost
		w.mu.Unlock()
		if lost != nil {
			cancel(lost)
		}
	}
	return w.Context.Done()
}

// cut notes that the server is lost. It returns false if the relay has begun.
func (w *connecting) cut(err error) bool {
	w.mu.Lock()
	if w.done {
		w.mu.Unlock()
		return false
	}
	if w.lost == nil {
		w.lost = err
	}
	cancel := w.cancel
	w.mu.Unlock()
	if cancel != nil {
		cancel(err)
	}
	return true
}

// lostNow returns why the server is lost, or nil.
func (w *connecting) lostNow() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// lostUnused returns why the server of a try is lost, or nil; failed says that the try
// has failed anyway. A server that has received bytes of the client does not count as
// lost: those bytes cannot be sent to another server, so the relay begins and ends with
// this one.
func (s *session) lostUnused(failed bool) error {
	if s.relay.sent > 0 && !failed {
		return nil
	}
	return s.connecting.lostNow()
}

// end ends the try.
func (w *connecting) end() {
	if w.cancel != nil {
		w.cancel(nil)
	}
}

// over notes that the relay has begun, and returns lostNow.
func (w *connecting) over() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	return w.lost
}
