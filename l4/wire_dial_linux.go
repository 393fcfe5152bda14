// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// dialing is what a relay remembers of connecting to b.
type dialing struct {
	answer chan struct{} // gets one when it is decided; nil once it is
	early  uint32        // events of b until the relay is wired
	to     *Conn         // b, if it is wired already
	broken error         // what became of a meanwhile

	queued *Conn  // a, while it waits for a server
	left   func() // is called if it does not
	leaves uint32 // events that say so
}

// dial connects b to addr with the help of p. It costs fewer system calls
// than package net takes, and no deep stack, which the goroutine would have to
// grow. ok is false if this is no address for it.
func (r *relay) dial(ctx context.Context, p *Parker, a *Conn, network, addr string, timeout time.Duration) (c *Conn, ok bool, err error) {
	r.mu.Lock()
	if r.dialing != nil { // of an earlier try
		r.dialing.to, r.dialing.early = nil, 0
	}
	r.mu.Unlock()
	s, done, ok, err := dialSock(network, addr)
	if !ok || err != nil {
		return nil, ok, dialError(network, addr, err)
	}
	c = NewConn(s)
	if !done && s.selfConnected() {
		err = os.NewSyscallError("connect", syscall.ECONNREFUSED)
	} else if !done {
		done, err = r.offer(a, c, &p.buffers)
	}
	if err != nil {
		c.Close()
		return nil, true, dialError(network, addr, err)
	}
	if done {
		return c, true, nil
	}
	return r.await(ctx, p, c, s, network, addr, timeout)
}

// offer sends what a has said already to b, which is being connected to. Over
// loopback that is done by now, so that there is nothing to wait for. ok tells
// that it is.
func (r *relay) offer(a, b *Conn, buffers *BufferPool) (ok bool, err error) {
	said := a.ahead
	var lent *Buffer
	if len(said) == 0 {
		lent = buffers.Get()
		defer buffers.Put(lent)
		n, err := a.readNow(lent.B, nil)
		if err != nil && err != syscall.EAGAIN {
			r.mu.Lock()
			r.waiting().broken = err
			r.mu.Unlock()
		}
		if said = lent.B[:n]; n == 0 { // be it the end: it will be read again
			return !unconnected(b), nil
		}
	}
	n, err := b.writeNow(said, nil, false)
	switch r.sent = int32(n); {
	case lent == nil:
		a.Discard(n)
	case n < len(said):
		a.ahead = append([]byte(nil), said[n:]...)
	}
	if n == 0 && err != syscall.EAGAIN {
		return false, os.NewSyscallError("connect", err)
	}
	return n > 0, nil // the relay finds the error
}

// await waits until c is connected.
func (r *relay) await(ctx context.Context, p *Parker, c *Conn, s *sock, network, addr string, timeout time.Duration) (*Conn, bool, error) {
	answer := make(chan struct{}, 1)
	r.mu.Lock()
	w := r.waiting()
	*w = dialing{answer: answer, to: c, broken: w.broken}
	r.mu.Unlock()
	c.parked.out = true // the answer
	if !p.wire(c, r) {
		c.Close()
		return nil, false, nil
	}
	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	var err error
	select {
	case <-answer:
		r.mu.Lock()
		early := w.early
		r.mu.Unlock()
		if early&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
			err = s.failure()
		}
	case <-late:
		err = os.ErrDeadlineExceeded
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		p.unwire(c)
		c.Close()
		return nil, true, dialError(network, addr, err)
	}
	return c, true, nil
}

func dialError(network, addr string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: "dial", Net: network, Addr: remoteOf(network, addr), Err: err}
}

// waiting returns r.dialing, made on first need; r.mu is held.
func (r *relay) waiting() *dialing {
	if r.dialing == nil {
		r.dialing = new(dialing)
	}
	return r.dialing
}

// answered notes events of b before the relay is wired; r.mu is held.
func (r *relay) answered(c *Conn, events uint32) {
	w := r.dialing
	if w == nil || c != w.to {
		return // of an earlier try
	}
	w.early |= events
	if w.answer != nil && events&(syscall.EPOLLOUT|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		w.answer <- struct{}{}
		w.answer = nil
	}
}

// hasLeft returns what is to be called if events say that a client in the queue
// has gone; r.mu is held.
func (r *relay) hasLeft(c *Conn, events uint32) (left func()) {
	if w := r.dialing; w != nil && c == w.queued && events&w.leaves != 0 {
		return w.left
	}
	return nil
}
