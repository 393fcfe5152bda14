// SPDX-License-Identifier: Apache-2.0

package l4test

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// BufferBytes is how much one direction of a connection holds before a write
// waits for the reader.
const BufferBytes = 1 << 20

// A stream is one direction of a connection. mu guards memory only. Waits are
// on changed, which is closed and replaced after each change that a waiter may
// need.
type stream struct {
	mu      sync.Mutex
	changed chan struct{}
	waiting int

	segments []segment // what was written and not read, in order
	size     int       // its bytes
	fin      bool      // nothing follows
	finAt    time.Time

	writerClosed bool  // closed by its own end: net.ErrClosed for the writer
	readerClosed bool  // ... for the reader; writing is of no use any more
	reset        error // what both get, the reader once all is read

	read, write limit

	latency time.Duration
	stalled bool
	cut     int64 // bytes that may still be written before a reset; -1 means all
}

// A segment is data that arrives at a time.
type segment struct {
	at   time.Time // zero means it is there
	data []byte
}

// A limit is a deadline in force.
type limit struct {
	timer   *time.Timer
	expired bool
}

func newStream() *stream {
	return &stream{changed: make(chan struct{}), cut: -1}
}

// wait waits for a change; mu is held before and after.
func (s *stream) wait() {
	ch := s.changed
	s.waiting++
	s.mu.Unlock()
	<-ch
	s.mu.Lock()
}

// notify wakes waiters; mu is held.
func (s *stream) notify() {
	if s.waiting > 0 {
		close(s.changed)
		s.changed = make(chan struct{})
		s.waiting = 0
	}
}

func (s *stream) setDeadline(l *limit, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer = nil
	l.expired = !t.IsZero() && !now().Before(t)
	if !t.IsZero() && !l.expired {
		var timer *time.Timer
		timer = time.AfterFunc(t.Sub(now()), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if l.timer == timer {
				l.expired = true
				s.notify()
			}
		})
		l.timer = timer
	}
	s.notify()
}

// change runs f with mu held and wakes waiters.
func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.notify()
}

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.readerClosed {
			return 0, net.ErrClosed
		}
		if s.read.expired {
			return 0, os.ErrDeadlineExceeded
		}
		if len(p) == 0 {
			return 0, nil
		}
		due, at := s.due()
		switch {
		case due && s.size > 0:
			return s.take(p), nil
		case s.reset != nil:
			return 0, s.reset
		case due:
			return 0, io.EOF
		case at.IsZero():
			s.wait()
		default:
			t := time.AfterFunc(at.Sub(now()), func() { s.change(func() {}) })
			s.wait()
			t.Stop()
		}
	}
}

// due reports whether data or the end has arrived, or when it will.
func (s *stream) due() (ok bool, at time.Time) {
	switch {
	case s.stalled:
		return false, time.Time{}
	case len(s.segments) > 0:
		at = s.segments[0].at
	case s.fin:
		at = s.finAt
	default:
		return false, time.Time{}
	}
	return at.IsZero() || !now().Before(at), at
}

// take moves what has arrived to p.
func (s *stream) take(p []byte) (n int) {
	for n < len(p) && len(s.segments) > 0 {
		head := &s.segments[0]
		if !head.at.IsZero() && now().Before(head.at) {
			break
		}
		m := copy(p[n:], head.data)
		n += m
		if head.data = head.data[m:]; len(head.data) == 0 {
			s.segments[0] = segment{}
			s.segments = s.segments[1:]
		}
	}
	s.size -= n
	s.notify()
	return n
}

func (s *stream) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writerClosed:
			return n, net.ErrClosed
		case s.write.expired:
			return n, os.ErrDeadlineExceeded
		case s.reset != nil:
			return n, s.reset
		case s.fin:
			return n, syscall.EPIPE
		case s.readerClosed:
			return n, syscall.ECONNRESET
		case len(p) == 0:
			return n, nil
		}
		if room := BufferBytes - s.size; room > 0 {
			m := min(room, len(p))
			s.put(p[:m])
			n, p = n+m, p[m:]
			continue
		}
		s.wait()
	}
}

// put appends data, or what is left of it before the cut.
func (s *stream) put(p []byte) {
	if s.cut >= 0 {
		p = p[:min(int64(len(p)), s.cut)]
		s.cut -= int64(len(p))
	}
	s.notify()
	if len(p) == 0 {
		return
	}
	s.size += len(p)
	at := s.arrival()
	if last := len(s.segments) - 1; last >= 0 && at.Equal(s.segments[last].at) {
		s.segments[last].data = append(s.segments[last].data, p...)
		return
	}
	s.segments = append(s.segments, segment{at, append([]byte(nil), p...)})
}

// arrival says when what is sent now is there: never before what was sent
// earlier.
func (s *stream) arrival() (at time.Time) {
	if s.latency > 0 {
		at = now().Add(s.latency)
	}
	if last := len(s.segments) - 1; last >= 0 && s.segments[last].at.After(at) {
		at = s.segments[last].at
	}
	return at
}

// end sends FIN.
func (s *stream) end() {
	if !s.fin {
		s.finAt = s.arrival()
		s.fin = true
	}
}

// abort ends the stream with a reset and loses what has not arrived.
func (s *stream) abort() {
	s.reset = syscall.ECONNRESET
	for i := range s.segments {
		if s.stalled || s.segments[i].at.After(now()) {
			s.segments = s.segments[:i]
			break
		}
	}
	s.stalled = false
	s.size = 0
	for _, g := range s.segments {
		s.size += len(g.data)
	}
}
