// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A polled is what a sock has that a poller of this package waits for. The runtime's poller
// forgets, at the beginning of each read, that something has come meanwhile, so that each
// wait takes a read that finds nothing. This one does not forget: it knows that there is
// nothing behind a short read until the kernel tells of more.
type polled struct {
	fd      int
	unix    bool // a read may end early: see isUnix
	poller  *poller
	in, out side
	read    intake // while isPosted or isTaken: what the goroutine that waits reads into
}

// A side is what is known of reading, or of writing.
type side struct {
	one   sync.Mutex // held by an operation: of several goroutines, as net.Conn allows
	state atomic.Uint32
	may   bool          // an attempt may succeed, without news; of the goroutine that has one
	wake  chan struct{} // of room for one
	timer *time.Timer

	mu sync.Mutex
	by instant // the deadline
}

// States of a side.
const (
	hasNews  = 1 << iota // since this was last cleared, before an attempt
	isWaited             // a goroutine waits
	isLate               // the deadline has passed
	isShut
	hasLeft
	isEnded  // there may be more behind a short read: see eventsOn
	isPosted // the poller may read for the goroutine that waits,
	isTaken  // does so,
	isRead   // has done so
	isQueued // a request is left to the outbox,
	isHeld   // and the goroutine, which has news, waits for that to end

	isNews = hasNews | isRead | isLate | isShut | hasLeft // for the goroutine that waits
)

// errLeft says that an operation has not begun, since the sock has left its poller.
var errLeft = errors.New("l4: the socket has left its poller")

// openPolled returns nil if there is no poller.
func openPolled(s *sock) *polled {
	if inBubble() {
		return nil
	}
	p := &polled{fd: int(s.fd), unix: s.unix}
	p.in.init(s.readBy)
	p.out.init(s.writeBy)
	if !p.join() {
		p.stop()
		return nil
	}
	return p
}

func (p *polled) side(writes bool) *side {
	if writes {
		return &p.out
	}
	return &p.in
}

func (s *side) init(by instant) {
	s.wake, s.may = make(chan struct{}, 1), true
	s.timer = time.AfterFunc(math.MaxInt64, s.expire)
	s.deadline(by)
}

// event is told by the poller, and reports whether p is taken: then it has to be read.
func (p *polled) event(events uint32) bool {
	if events&(syscall.EPOLLOUT|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		p.out.tell(hasNews)
	}
	if events&^syscall.EPOLLOUT == 0 {
		return false
	}
	if events&eventsOn != 0 {
		p.in.state.Or(isEnded)
	}
	if p.in.take() {
		return true
	}
	p.in.tell(hasNews)
	return false
}

// tell sets bits, and wakes the goroutine that waits.
func (s *side) tell(bits uint32) {
	if s.state.Load()&bits == bits {
		return
	}
	if s.state.Or(bits)&isWaited != 0 {
		s.state.And(^uint32(isWaited))
		s.call()
	}
}

// call wakes the goroutine that waits, or the next one, which waits on.
func (s *side) call() {
	select {
	case s.wake <- struct{}{}:
	default: // an earlier one has not been taken yet
	}
}

// take lets the poller read for the goroutine that waits, if it may: not if there is news
// that this goroutine has to look at first, as a request that could not be written is.
func (s *side) take() bool {
	for {
		st := s.state.Load()
		if st&isPosted == 0 || st&(isQueued|hasNews) != 0 {
			return false
		}
		if s.state.CompareAndSwap(st, st&^(isPosted|isWaited)|isTaken) {
			return true
		}
	}
}

// taken ends that; if there was nothing, the goroutine waits on.
func (s *side) taken(read bool) {
	if read {
		s.state.Or(isRead)
	}
	s.state.And(^uint32(isTaken))
	s.call()
}

// written says that a request is left to the outbox no longer. If it is not all written, the
// goroutine that waits has to see to it.
func (s *side) written(all bool) {
	if !all {
		s.state.Or(hasNews)
	}
	if s.state.And(^uint32(isQueued|isHeld))&(isNews|isHeld) != 0 {
		s.call()
	}
}

// over returns why an operation must not begin, or go on.
func (s *side) over() error {
	switch st := s.state.Load(); {
	case st&isShut != 0:
		return net.ErrClosed
	case st&hasLeft != 0:
		return errLeft
	case st&isLate != 0:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wait waits for news. With post, it may be that the poller has read.
func (s *side) wait(post bool) (read bool, err error) {
	waits := uint32(isWaited)
	if post {
		waits |= isPosted
	}
	for {
		switch st := s.state.Load(); {
		case st&isTaken != 0:
			<-s.wake // soon
		case st&isQueued != 0 && st&isNews != 0: // which may be taken back, as a deadline is
			if s.state.CompareAndSwap(st, st|isHeld) {
				<-s.wake // soon
			}
		case st&isRead != 0:
			s.state.And(^uint32(isRead))
			return true, nil
		case st&isNews != 0:
			if s.state.And(^uint32(isWaited|isPosted))&(isTaken|isRead) == 0 {
				return false, s.over()
			}
		case st&isWaited == 0:
			s.state.Or(waits) // and look again, at what came before that
		default:
			<-s.wake
		}
	}
}

// hear takes the news.
func (s *side) hear() {
	if s.state.Load()&hasNews != 0 {
		s.state.And(^uint32(hasNews))
		s.may = true
	}
}

// run calls f until it returns true, and waits in between. If it reads into an intake, false
// means that there is nothing, and the poller may read instead; a function of the host's may
// say so because it wants more.
func (p *polled) run(f func(fd uintptr) bool, op operation) error {
	s := p.side(op.writes)
	s.one.Lock()
	defer s.one.Unlock()
	for done := false; ; {
		if err := s.over(); err != nil {
			return err
		}
		s.hear()
		if s.may || !op.idle {
			done = f(uintptr(p.fd))
			s.may = op.in == nil
		}
		if !done {
			var err error
			if done, err = p.wait(s, op.in); err != nil {
				return err
			}
		}
		if done {
			s.may = op.in == nil || !op.in.room || p.unix || s.state.Load()&isEnded != 0 // else that was all
			return nil
		}
	}
}

// wait waits for news, or until the poller has read into in.
func (p *polled) wait(s *side, in *intake) (read bool, err error) {
	post := in != nil && in.isShort(maxRead)
	if post {
		p.read = *in
	}
	if read, err = s.wait(post); read {
		*in = p.read
	}
	if post {
		p.read = intake{}
	}
	return read, err
}

// shut ends what waits, and closes the descriptor. As package net does, it waits for the
// operations that were under way: none touches the descriptor once this has returned.
func (p *polled) shut() {
	p.in.tell(isShut)
	p.out.tell(isShut)
	p.leavePoller()
	p.stop()
	p.in.one.Lock()
	defer p.in.one.Unlock()
	p.out.one.Lock()
	defer p.out.one.Unlock()
	syscall.Close(p.fd) // may block, with SO_LINGER
}

// leave ends the use of the poller, unless an operation is under way.
func (p *polled) leave() bool {
	if !p.in.one.TryLock() {
		return false
	}
	defer p.in.one.Unlock()
	if !p.out.one.TryLock() {
		return false
	}
	defer p.out.one.Unlock()
	p.in.tell(hasLeft)
	p.out.tell(hasLeft)
	p.unpoll()
	p.stop()
	return true
}

func (p *polled) stop() {
	p.in.deadline(0)
	p.out.deadline(0)
}

// deadline sets the deadline; 0 means none.
func (s *side) deadline(by instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = by
	s.timer.Stop()
	s.watch()
}

// watch arms the timer, or says that it is late; s.mu is held.
func (s *side) watch() {
	left := time.Duration(s.by - instantNow())
	if s.by != 0 && left <= 0 {
		s.tell(isLate)
		return
	}
	s.state.And(^uint32(isLate))
	if s.by != 0 {
		s.timer.Reset(left)
	}
}

// expire is what the timer calls, perhaps late: for a deadline that has been moved.
func (s *side) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by != 0 {
		s.watch()
	}
}
