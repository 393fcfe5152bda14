// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// watchEvents has the Parker watch; nil if it cannot.
func (s *session) watchEvents(left func()) (stop func()) {
	c := s.client
	p := parkerOf(c)
	if p == nil || c.parker.Load() != nil { // parked by another owner
		return nil
	}
	r := &s.relay
	r.mu.Lock()
	r.dialing.queued, r.dialing.left = c, left
	r.dialing.leaves = syscall.EPOLLERR | syscall.EPOLLHUP
	if s.p.AbortOnClose {
		r.dialing.leaves |= syscall.EPOLLRDHUP
	}
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
