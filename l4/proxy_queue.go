// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// errClientLeft is why a client that has reset its connection, or closed it, left the queue.
var errClientLeft = errors.New("l4: the client went away while it waited for a server")

// waiting is the context of a client that may have to queue. It ends when the
// client resets its connection. Detecting that costs nothing until a wait calls
// Done. A client that has only ended its stream may still expect an answer and
// stays, without AbortOnClose. The methods are called by one goroutine.
type waiting struct {
	context.Context // of the server
	s               *session
	cancel          context.CancelCauseFunc // nil until Done is called
	stop            func()
}

func (w *waiting) Done() <-chan struct{} {
	if w.cancel == nil {
		w.Context, w.cancel = context.WithCancelCause(w.Context)
		w.stop = w.s.watchReset(func() { w.cancel(errClientLeft) })
	}
	return w.Context.Done()
}

// end undoes what Done did.
func (w *waiting) end() {
	if w.cancel != nil {
		w.stop()
		w.cancel(nil)
	}
}

// aheadInQueue bounds what is read of a client that waits, where nothing but
// reading tells of its end.
const aheadInQueue = 4 << 10

// watchReset has left called if the client resets its connection before stop is
// called, which leaves all as it was; with AbortOnClose, also if it ends its stream.
func (s *session) watchReset(left func()) (stop func()) {
	if stop := s.watchEvents(left); stop != nil {
		return stop
	}
	c, done := s.client, make(chan struct{})
	go func() {
		defer close(done)
		defer func() { recovered(recover(), s.log, "connection") }()
		for len(c.Buffered()) < aheadInQueue {
			_, err := c.Peek(len(c.Buffered()) + 1)
			switch {
			case err == nil:
				continue
			case (err != io.EOF || s.p.AbortOnClose) && !isTimeout(err):
				left()
			}
			return
		}
	}()
	return func() {
		c.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.SetReadDeadline(time.Time{})
	}
}

// acquire takes a lease, waiting in the queue if need be.
func (s *session) acquire(ctx context.Context, req balance.Request) (end Termination, err error) {
	w := &waiting{Context: ctx, s: s}
	s.lease, err = s.p.Pool.Acquire(w, req)
	w.end()
	switch {
	case err == nil && s.record == nil:
		return end, nil
	case err == nil:
		s.record.Note(func(r *Record) { r.Assigned, r.Connected = reached(time.Since(r.Start)), 0 })
		return end, nil
	case errors.Is(err, errClientLeft):
		end = Termination{ClientAborted, PhaseQueue}
	case errors.Is(err, balance.ErrNoServer):
		end = Termination{ServerAborted, PhaseConnect}
	case errors.Is(err, balance.ErrQueueTimeout):
		end = Termination{ServerTimeout, PhaseQueue}
	case ctx.Err() != nil:
		end = Termination{Killed, PhaseQueue}
	default:
		end = Termination{Resource, PhaseQueue}
	}
	return end, noLease(s.p.Pool, err)
}

// noLease says which pool has given no lease.
func noLease(p *balance.Pool, err error) error {
	if p.Name == "" {
		return fmt.Errorf("l4: %w", err)
	}
	return fmt.Errorf("l4: pool %q: %w", p.Name, err)
}
