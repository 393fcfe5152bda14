// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"runtime"
	"sync"
	"syscall"
)

// A call is one read or write of a socket that does not wait.
type call struct {
	fd     int
	writes bool
	p      []byte
	n      int
	errno  syscall.Errno
}

// Of calls that are made together: they do not tell the scheduler that the thread is busy, so
// they have to be short.
const (
	maxCalls = 16
	maxRead  = 32 << 10 // bytes of one
	maxWrite = 4 << 10
)

func (c *call) do() {
	if c.writes {
		c.n, c.errno = sysWrite(uintptr(c.fd), c.p, 0)
	} else {
		c.n, c.errno = sysRead(uintptr(c.fd), c.p)
	}
}

// calls makes calls together, in one system call where there is a ring: what enters and
// leaves the kernel is about a third of the cost of a short read or write, and more where a
// hypervisor has a hand in it. One goroutine at a time may use it.
type calls struct {
	list   []call
	ring   *ring // nil if there is none
	opened bool  // or need be none any more
}

// do makes those of list, at most maxCalls.
func (cs *calls) do() {
	if len(cs.list) > 1 && !cs.opened {
		cs.ring, cs.opened = openRing(), true
	}
	if len(cs.list) > 1 && cs.ring != nil {
		cs.ring.do(cs.list)
		return
	}
	for i := range cs.list {
		cs.list[i].do()
	}
}

func (cs *calls) clear() {
	clear(cs.list)
	cs.list = cs.list[:0]
}

func (cs *calls) close() {
	cs.opened = true
	if cs.ring != nil {
		cs.ring.close()
		cs.ring = nil
	}
}

// asks writes the requests of several goroutines together. The first one gives way once, so
// that those that are ready add theirs, and writes all. None waits for that: each of them
// waits for its answer anyway.
type asks struct {
	mu    sync.Mutex
	queue []*asking
	spare []*asking // an empty queue

	writing sync.Mutex
	calls   calls
}

// add writes a, or leaves that to another goroutine: until isQueued is cleared, a must not be
// used.
func (as *asks) add(a *asking) {
	a.polled.in.state.Or(isQueued)
	as.mu.Lock()
	as.queue = append(as.queue, a)
	switch len(as.queue) {
	case 1:
		as.mu.Unlock()
		runtime.Gosched()
		as.mu.Lock()
	case maxCalls:
	default:
		as.mu.Unlock()
		return
	}
	q := as.queue
	as.queue, as.spare = as.spare, nil
	as.mu.Unlock()

	as.write(q)

	clear(q)
	as.mu.Lock()
	as.spare = q[:0]
	as.mu.Unlock()
}

func (as *asks) write(q []*asking) {
	as.writing.Lock()
	defer as.writing.Unlock()
	for _, a := range q {
		as.calls.list = append(as.calls.list, call{fd: a.polled.fd, writes: true, p: a.req})
	}
	as.calls.do()
	for i, a := range q {
		a.written(as.calls.list[i].n, as.calls.list[i].errno)
	}
	as.calls.clear()
}

func (as *asks) close() {
	as.writing.Lock()
	defer as.writing.Unlock()
	as.calls.close()
}
