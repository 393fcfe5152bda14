// SPDX-License-Identifier: Apache-2.0

package health

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A target is what one probe is about: a server, or those that share a key.
// The goroutine of Run owns it, but for status and the atomics.
type target struct {
	key     key
	servers []*balance.Server // replaced, never changed in place
	next    []*balance.Server // what servers will be, while a sync counts
	machine machine
	addr    string // of the first server
	// unprobed is why it cannot be probed; empty if it can.
	unprobed       string
	epoch          int       // of the machine: a probe that began in another says nothing
	due            time.Time // of the next probe
	place          int       // in the heap of due targets, -1 if it is not there
	busy           bool      // a probe is running
	probes, failed uint64    // done
	paused         bool      // all servers are in maintenance
	gone           bool      // all servers have left
	spread         bool      // has its place among the first probes

	errors  atomic.Int32                    // in a row in live traffic
	waiting atomic.Pointer[balance.Outcome] // the last of a row that Run has not yet seen

	mu     sync.Mutex // guards status
	status Status
}

// A key tells targets apart: by name if there is one, else by server.
type key struct {
	name   string
	server *balance.Server
}

// read returns the status.
func (t *target) read() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// A dueHeap holds targets in the order in which they are due: a binary heap. The zero
// value is empty.
type dueHeap struct {
	heap []*target
}

// next returns the target that is due first, or nil.
func (r *dueHeap) next() *target {
	if len(r.heap) == 0 {
		return nil
	}
	return r.heap[0]
}

// set puts t in its place for t.due, adding it if it is not there.
func (r *dueHeap) set(t *target) {
	if t.place < 0 {
		t.place = len(r.heap)
		r.heap = append(r.heap, t)
	}
	r.down(r.up(t.place))
}

// remove takes t out.
func (r *dueHeap) remove(t *target) {
	i, last := t.place, len(r.heap)-1
	if i < 0 {
		return
	}
	r.swap(i, last)
	r.heap[last] = nil
	r.heap = r.heap[:last]
	t.place = -1
	if i < last {
		r.down(r.up(i))
	}
}

func (r *dueHeap) swap(i, j int) {
	h := r.heap
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (r *dueHeap) up(i int) int {
	for i > 0 {
		parent := (i - 1) / 2
		if !r.heap[i].due.Before(r.heap[parent].due) {
			break
		}
		r.swap(i, parent)
		i = parent
	}
	return i
}

func (r *dueHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(r.heap) {
			return
		}
		if right := child + 1; right < len(r.heap) && r.heap[right].due.Before(r.heap[child].due) {
			child = right
		}
		if !r.heap[child].due.Before(r.heap[i].due) {
			return
		}
		r.swap(i, child)
		i = child
	}
}
