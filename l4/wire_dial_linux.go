// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// dialing is what a relay remembers while it connects to b.
type dialing struct {
	answer chan struct{} // gets one when it is decided; nil once it is
	early  uint32        // events of b until the relay is wired
}

// dial connects b to addr with the help of p. It costs fewer system calls
// than package net takes, and no deep stack, which the goroutine would have to
// grow. ok is false if this is no address for it.
func (r *relay) dial(ctx context.Context, p *Parker, network, addr string, timeout time.Duration) (c *Conn, ok bool, err error) {
	s, done, ok, err := dialSock(network, addr)
	if !ok || err != nil {
		return nil, ok, dialError(network, addr, err)
	}
	c = NewConn(s)
	if done {
		return c, true, nil
	}
	answer := make(chan struct{}, 1)
	r.mu.Lock()
	r.dialing = dialing{answer: answer}
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
	select {
	case <-answer:
		r.mu.Lock()
		early := r.dialing.early
		r.mu.Unlock()
		if early&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
			err = s.failure()
		} else if s.selfConnected(addr) {
			err = os.NewSyscallError("connect", syscall.ECONNREFUSED)
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
	var to net.Addr
	if sa, _, ok := sockaddr(network, addr); ok {
		to = (&sock{}).addr(sa)
	}
	return &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
}

// answered notes events of b before the relay is wired; r.mu is held.
func (r *relay) answered(c *Conn, events uint32) {
	r.dialing.early |= events
	if r.dialing.answer != nil && events&(syscall.EPOLLOUT|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		r.dialing.answer <- struct{}{}
		r.dialing.answer = nil
	}
}
