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
	w := r.waiting()
	w.queued, w.left = c, left
	w.leaves = syscall.EPOLLERR | syscall.EPOLLHUP
	if s.p.AbortOnClose {
		w.leaves |= syscall.EPOLLRDHUP
	}
	r.mu.Unlock()
	stop = func() {
		p.unwatch(c)
		r.mu.Lock()
		w.queued, w.left = nil, nil
		r.mu.Unlock()
	}
	if !p.wire(c, r) {
		stop()
		return nil
	}
	return stop
}
