// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"runtime"
	"slices"
	"sync"
	"syscall"
)

// A call is one read or write of a socket that does not wait.
type call struct {
	fd     int
	writes bool
	p      []byte
	n      int // 0 with an errno
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
	c.n = max(c.n, 0)
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

// A posting is a request that a goroutine leaves to an outbox.
type posting struct {
	call
	looks   bool    // the connection must be seen to be open and quiet first
	spoke   bool    // it was not, and nothing is written
	answer  *side   // where the goroutine waits for the answer
	unasked bool    // it is not written, since news has come before: the goroutine has to look
	probe   [1]byte // of look
}

// isUnasked says so of one that is about to be written.
func (w *posting) isUnasked() bool {
	if w.answer.state.Load()&hasNews == 0 {
		return false
	}
	w.unasked = true
	w.answer.written(false)
	return true
}

// look returns the call that looks, and looked takes what it found.
func (w *posting) look() call     { return call{fd: w.fd, p: w.probe[:]} }
func (w *posting) looked(c *call) { w.spoke = c.errno != syscall.EAGAIN }

// hasSpoken says so of one that has been looked at.
func (w *posting) hasSpoken() bool {
	if !w.spoke {
		return false
	}
	w.answer.written(false)
	return true
}

// An outbox writes the requests of several goroutines together. The first one gives way once,
// so that those that are ready add theirs, and writes all. None waits for that: each of them
// waits for its answer anyway.
type outbox struct {
	mu    sync.Mutex
	queue []*posting

	writing sync.Mutex // held while some are written
	batch   []*posting
	calls   calls
}

// post writes w, or leaves that to another goroutine: until isQueued is cleared, w must not be
// used.
func (o *outbox) post(w *posting) {
	w.answer.state.Or(isQueued)
	switch o.add(w) {
	case 1:
		runtime.Gosched()
	case maxCalls:
	default:
		return
	}
	o.writing.Lock()
	defer o.writing.Unlock()
	o.writeAll()
}

// add returns how many there are.
func (o *outbox) add(w *posting) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, w)
	return len(o.queue)
}

// writeAll is called with writing held. The queue may be empty by then, or long.
func (o *outbox) writeAll() {
	o.mu.Lock()
	o.queue, o.batch = o.batch[:0], o.queue
	o.mu.Unlock()
	o.batch = slices.DeleteFunc(o.batch, (*posting).isUnasked)
	for together := range slices.Chunk(o.batch, maxCalls) {
		o.write(o.look(together))
	}
	clear(o.batch)
}

// look looks for those that have to, and returns those to write.
func (o *outbox) look(batch []*posting) []*posting {
	for _, w := range batch {
		if w.looks {
			o.calls.list = append(o.calls.list, w.look())
		}
	}
	o.calls.do()
	looked := o.calls.list
	for _, w := range batch {
		if w.looks {
			w.looked(&looked[0])
			looked = looked[1:]
		}
	}
	o.calls.clear()
	return slices.DeleteFunc(batch, (*posting).hasSpoken)
}

func (o *outbox) write(batch []*posting) {
	for _, w := range batch {
		o.calls.list = append(o.calls.list, w.call)
	}
	o.calls.do()
	for i, w := range batch {
		w.call = o.calls.list[i]
		w.answer.written(w.n == len(w.p))
	}
	o.calls.clear()
}

func (o *outbox) close() {
	o.writing.Lock()
	defer o.writing.Unlock()
	o.calls.close()
}
