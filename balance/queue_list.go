// SPDX-License-Identifier: Apache-2.0

package balance

import "math"

// A waitList is a list of waiters in the order of service: by class of priority, within
// a class a turn for each tenant in rotation, and within a tenant by arrival. A tenant
// that comes back after its last waiter has left joins the end of the rotation, so
// nothing is kept of tenants that do not wait.
//
// Source: deficit round robin (Shreedhar, Varghese, "Efficient Fair Queuing Using
// Deficit Round-Robin", 1995), where all work costs the same.
type waitList struct {
	first, last *lane // by priority, then in rotation
	lanes       map[laneKey]*lane
	n           int // waiters

	spare *lane // lanes that were used before
}

type laneKey struct {
	priority int
	tenant   uint64
}

// A lane holds the waiters of one tenant that are of the same priority. It is never
// empty.
type lane struct {
	laneKey
	weight int    // waiters to serve in a turn
	left   int    // of them, in this turn
	turn   uint64 // number of the last arrival when its turn ended; 0 before that

	head, tail *waiter
	n          int
	prev, next *lane
}

// mostWeight is the greatest weight there is: times the waiters of a lane, it is an int64.
const mostWeight = math.MaxInt32

// front returns the first waiter in line, or nil.
func (l *waitList) front() *waiter {
	if l.first == nil {
		return nil
	}
	return l.first.head
}

// after returns the waiter that follows w in its list, or nil.
func (w *waiter) after() *waiter {
	if w.next != nil {
		return w.next
	}
	if w.lane.next != nil {
		return w.lane.next.head
	}
	return nil
}

// before reports whether w is served before o, which is in another list.
func (w *waiter) before(o *waiter) bool {
	if w.priority != o.priority {
		return w.priority < o.priority
	}
	return max(w.number, w.lane.turn) < max(o.number, o.lane.turn)
}

// insert puts w into the lane of its tenant, near the end more often than not.
func (l *waitList) insert(w *waiter) {
	q := l.lane(laneKey{w.priority, w.tenant}, min(max(w.weight, 1), mostWeight))
	at := q.tail
	for at != nil && w.number < at.number {
		at = at.prev
	}
	w.list, w.lane, w.prev = l, q, at
	if at == nil {
		w.next, q.head = q.head, w
	} else {
		w.next, at.next = at.next, w
	}
	if w.next == nil {
		q.tail = w
	} else {
		w.next.prev = w
	}
	q.n++
	l.n++
}

// lane returns the lane of that key. A new one is the last of its class.
func (l *waitList) lane(key laneKey, weight int) *lane {
	q := l.lanes[key]
	if q != nil {
		q.weight = weight
		q.left = min(q.left, weight)
		return q
	}
	if q = l.spare; q == nil {
		q = new(lane)
	} else {
		l.spare = q.next
	}
	*q = lane{laneKey: key, weight: weight, left: weight}
	if l.lanes == nil {
		l.lanes = make(map[laneKey]*lane)
	}
	l.lanes[key] = q
	l.link(q)
	return q
}

// link puts q at the end of its class.
func (l *waitList) link(q *lane) {
	at := l.last
	for at != nil && at.priority > q.priority {
		at = at.prev
	}
	q.prev = at
	if at == nil {
		q.next, l.first = l.first, q
	} else {
		q.next, at.next = at.next, q
	}
	if q.next == nil {
		l.last = q
	} else {
		q.next.prev = q
	}
}

func (l *waitList) unlink(q *lane) {
	if q.prev == nil {
		l.first = q.next
	} else {
		q.prev.next = q.next
	}
	if q.next == nil {
		l.last = q.prev
	} else {
		q.next.prev = q.prev
	}
}

func (l *waitList) remove(w *waiter) {
	q := w.lane
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.list, w.lane, w.prev, w.next = nil, nil, nil, nil
	q.n--
	l.n--
	if q.n == 0 {
		l.unlink(q)
		delete(l.lanes, q.laneKey)
		*q = lane{next: l.spare}
		l.spare = q
	}
}

// served notes that w is to be served, when the last arrival had that number. A lane
// whose turn ends by it goes to the end of its class.
func (l *waitList) served(w *waiter, number uint64) {
	q := w.lane
	if q.left--; q.left > 0 {
		return
	}
	q.left = q.weight
	if q.next != nil && q.next.priority == q.priority || q.prev != nil && q.prev.priority == q.priority {
		q.turn = number
		l.unlink(q)
		l.link(q)
	}
}

// excess returns the waiter that has to leave since w has come into a full list: the
// newest one of the tenant that has most waiters for its weight, among those that are
// not served before w. It is w, unless another tenant has more than that of w.
func (l *waitList) excess(w *waiter) *waiter {
	most, out := w.lane, w
	for q := l.last; q != nil && q.priority >= w.priority; q = q.prev {
		if q.tenant != w.tenant && int64(q.n)*int64(most.weight) > int64(most.n)*int64(q.weight) {
			most, out = q, q.tail
		}
	}
	return out
}
