// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// replyBody is the body of a response. At its end, or when it is closed, it
// ends the lease and releases the connection.
type replyBody struct {
	c      *caller
	resp   *http.Response
	held   []byte
	err    error         // what Read returns from now on; nil until the body ends
	turn   chan struct{} // held by the goroutine that reads or closes
	closed atomic.Bool

	mu   sync.Mutex
	over bool // the source may be another request's
}

var errBodyClosed = errors.New("l7: read of a closed body")

// Read implements [io.Reader].
func (b *replyBody) Read(p []byte) (int, error) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.err != nil {
		return 0, b.err
	}
	if b.closed.Load() {
		return 0, errBodyClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	src := b.c.attempt.try.src
	if len(b.held) == 0 {
		var err error
		if b.held, err = src.next(); err != nil {
			if err == io.EOF {
				b.end(nil)
			} else {
				b.end(err)
			}
			return 0, b.err
		}
	}
	n := copy(p, b.held)
	b.held = b.held[n:]
	b.c.x.Record.BytesOut += int64(n)
	if len(b.held) == 0 && src.ended() { // with Content-Length, the end is known at once
		b.end(nil)
		return n, b.err
	}
	return n, nil
}

// Close implements [io.Closer]. It interrupts a Read in progress.
func (b *replyBody) Close() error {
	b.closed.Store(true)
	select {
	case b.turn <- struct{}{}:
	default:
		b.interrupt()
		b.turn <- struct{}{}
	}
	defer func() { <-b.turn }()
	if b.err == nil {
		b.end(errBodyClosed)
	}
	return nil
}

// interrupt ends a Read in progress, unless that has just ended the body.
func (b *replyBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.c.attempt.try.src.interrupt()
	}
}

// end releases everything. Err is nil if the body is complete.
func (b *replyBody) end(err error) {
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	c := b.c
	t := &c.attempt
	src := t.try.src
	whole := src.stopSending(t, false)
	untouched := c.detach()
	switch {
	case err == nil:
		b.err = io.EOF
		if f := src.trailers(); f != nil && f.Len() > 0 {
			if b.resp.Trailer == nil {
				b.resp.Trailer = make(http.Header)
			}
			addFields(b.resp.Trailer, f)
		}
		src.judge(&t.try.outcome)
		src.release(untouched && whole && !c.noKeep && src.ended())
	case b.closed.Load():
		b.err = errBodyClosed
		c.x.Record.Termination = endOf(l4.ClientAborted, l4.PhaseData)
		t.try.outcome.Class = balance.ClientAborted
		src.close()
	default:
		t.cut(src, err)
		if b.err = c.ended(); b.err == nil {
			b.err = c.x.Record.Err
		}
		src.close()
	}
	t.try.done(t.try.outcome)
	c.settle()
}

// tunnelBody is the Body after a 101: the connection itself.
type tunnelBody struct {
	c       *caller
	conn    serverTunnel
	once    sync.Once
	limit   time.Duration
	in, out atomic.Int64          // bytes from the program, and from the server
	fault   atomic.Pointer[error] // the first one
	closed  atomic.Bool
}

func newTunnelBody(c *caller, u serverTunnel) *tunnelBody {
	u.open()
	return &tunnelBody{c: c, conn: u, limit: orDefault(c.t.StreamTimeout, defaultStreamTimeout)}
}

// Read reads from the server. One goroutine may read while another one writes.
func (b *tunnelBody) Read(p []byte) (int, error) {
	n, err := b.conn.read(p, b.limit)
	b.out.Add(int64(n))
	return n, b.failed(err)
}

// Write writes to the server.
func (b *tunnelBody) Write(p []byte) (int, error) {
	if err := b.failed(b.conn.write(p, b.limit)); err != nil {
		return 0, err
	}
	b.in.Add(int64(len(p)))
	return len(p), nil
}

// failed returns err as the program sees it, and keeps it for the record.
func (b *tunnelBody) failed(err error) error {
	ended := b.c.ended()
	switch {
	case err == nil || err == io.EOF:
		return err
	case b.closed.Load():
		return errBodyClosed
	case ended != nil:
		err = ended
	default:
		err = timedOut("Transport.StreamTimeout", b.limit, b.c.attempt.try.src.end().cutError(err))
	}
	b.fault.CompareAndSwap(nil, &err)
	return err
}

// CloseWrite ends the sending direction.
func (b *tunnelBody) CloseWrite() error { return b.conn.conn().CloseWrite() }

// Close ends the tunnel and the lease. It may be called during Read and Write.
func (b *tunnelBody) Close() error {
	b.once.Do(func() {
		c, t := b.c, &b.c.attempt
		b.closed.Store(true)
		c.detach()
		r := &c.x.Record
		r.BytesIn, r.BytesOut = b.in.Load(), b.out.Load()
		if err := b.fault.Load(); err != nil {
			_, by := t.try.src.end().blame(*err)
			r.Termination, r.Err = endOf(by, l4.PhaseData), *err
		}
		b.conn.leave()
		t.try.done(t.try.outcome)
		c.settle()
	})
	return nil
}
