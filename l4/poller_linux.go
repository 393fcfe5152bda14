// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A poller tells socks what the kernel says of them. Like a Parker it is one
// epoll instance, which is waited on through the runtime's poller, and it runs while there
// are connections.
type poller struct {
	file  *os.File
	ep    int
	asker asker // of run, after each full batch of events

	mu    sync.Mutex
	conns map[int32]*polled // by descriptor

	calls  calls     // of run
	taken  []*polled // of run
	outbox outbox
}

// polling is the pollers of the process: one for each processor at most, among which the
// connections are distributed.
var polling struct {
	mu      sync.Mutex
	pollers []*poller
	next    int
}

const eventsPolled = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | syscall.EPOLLPRI | epollET

// inBubble reports whether this goroutine seems to be in a bubble of testing/synctest, whose
// clock begins in the year 2000. What a poller and its connections share must be outside of
// any, or inside of the same one.
func inBubble() bool { return time.Now().Unix() < epoch.Unix() }

// join gives p a poller; false if there is none.
func (p *polled) join() bool {
	polling.mu.Lock()
	defer polling.mu.Unlock()
	if len(polling.pollers) < runtime.GOMAXPROCS(0) {
		p.poller = newPoller()
	}
	switch n := len(polling.pollers); {
	case p.poller != nil: // p is its first
		polling.pollers = append(polling.pollers, p.poller)
	case n == 0:
		return false
	default:
		polling.next = (polling.next + 1) % n
		p.poller = polling.pollers[polling.next]
	}
	if !p.poller.add(p) {
		p.poller.endIfUnused()
		return false
	}
	return true
}

// leavePoller is for a descriptor that is closed next: the kernel forgets it then.
func (p *polled) leavePoller() {
	polling.mu.Lock()
	defer polling.mu.Unlock()
	q := p.poller
	q.mu.Lock()
	delete(q.conns, int32(p.fd))
	q.mu.Unlock()
	q.endIfUnused()
}

// unpoll is for one that stays open.
func (p *polled) unpoll() {
	sysEpollCtl(p.poller.ep, syscall.EPOLL_CTL_DEL, p.fd, &syscall.EpollEvent{})
	p.leavePoller()
}

func newPoller() *poller {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	syscall.SetNonblock(ep, true) // so that NewFile leaves it to the runtime's poller
	q := &poller{file: os.NewFile(uintptr(ep), "epoll"), ep: ep, conns: make(map[int32]*polled)}
	if q.file.SetDeadline(time.Time{}) != nil { // it is not told of anything
		q.file.Close()
		return nil
	}
	go q.run()
	return q
}

func (q *poller) run() {
	defer q.asker.close()
	defer q.calls.close()
	defer q.outbox.close()
	eachEvents(q.file, &q.asker, q.handle)
}

func (q *poller) handle(events []syscall.EpollEvent) {
	q.tell(events)
	for taken := range slices.Chunk(q.taken, maxCalls) {
		q.read(taken)
	}
	clear(q.taken)
	q.taken = q.taken[:0]
}

func (q *poller) tell(events []syscall.EpollEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, ev := range events {
		// It may be late and of another connection, which had the descriptor before: then
		// the one that has it now looks in vain.
		if p := q.conns[ev.Fd]; p != nil && p.event(ev.Events) {
			q.taken = append(q.taken, p)
		}
	}
}

// read reads for those that are taken, which no longer close their descriptors: see shut.
func (q *poller) read(taken []*polled) {
	for _, p := range taken {
		q.calls.list = append(q.calls.list, call{fd: p.fd, p: p.read.begin()})
	}
	q.calls.do()
	for i, p := range taken {
		c := &q.calls.list[i]
		p.in.taken(p.read.end(len(c.p), c.n, c.errno))
	}
	q.calls.clear()
}

// add is called with polling.mu held, as is endIfUnused.
func (q *poller) add(p *polled) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	ev := syscall.EpollEvent{Events: eventsPolled, Fd: int32(p.fd)}
	if sysEpollCtl(q.ep, syscall.EPOLL_CTL_ADD, p.fd, &ev) != 0 {
		return false
	}
	q.conns[ev.Fd] = p
	return true
}

func (q *poller) endIfUnused() {
	q.mu.Lock()
	left := len(q.conns)
	q.mu.Unlock()
	if left > 0 {
		return
	}
	if i := slices.Index(polling.pollers, q); i >= 0 {
		polling.pollers = slices.Delete(polling.pollers, i, i+1)
		q.file.Close()
	}
}

// eachEvents calls handle with what becomes ready in an epoll instance, until its file is
// closed or epoll_wait(2) fails; the error says which.
func eachEvents(file *os.File, a *asker, handle func([]syscall.EpollEvent)) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var (
		events [128]syscall.EpollEvent
		broken error
	)
	// All is done within one call of Read: between two, the runtime forgets
	// that the descriptor became readable, and it would take an epoll_wait that
	// finds nothing to be sure of it.
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, errno := sysEpollPoll(int(fd), events[:])
			switch errno {
			case 0:
			case syscall.EINTR:
				continue
			default:
				broken = errno
				return true
			}
			handle(events[:n])
			if n < len(events) {
				return false
			}
			a.ask()
		}
	})
	if err == nil {
		err = broken
	}
	return err
}
