// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// watchEvents has the Parker watch; nil if it cannot.
func (s *session) watchEvents(left func()) (stop func()) {
	c := s.client
	p := parkerOf(c)
	if p == nil || c.parker.Load() != nil { // somebody else's
		return nil
	}
	r := &s.relay
	r.mu.Lock()
	r.dialing.queued, r.dialing.left = c, left
	r.mu.Unlock()
	stop = func() {
		p.unwatch(c)
		r.mu.Lock()
		r.dialing.queued, r.dialing.left = nil, nil
		r.mu.Unlock()
	}
	if !p.wire(c, r) {
		stop()
		return nil
	}
	return stop
}

// hasLeft returns what is to be called if events say that a client in the queue
// has gone both ways; r.mu is held.
func (r *relay) hasLeft(c *Conn, events uint32) (left func()) {
	if c == r.dialing.queued && events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		return r.dialing.left
	}
	return nil
}
