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
	classes chain[class, *class] // by priority
	lanes   map[laneKey]*lane
	n       int // waiters

	spare   *lane  // lanes that were used before
	classed *class // and classes
}

type laneKey struct {
	priority int
	tenant   uint64
}

// A lane holds the waiters of one tenant that are of the same priority. It is never
// empty.
type lane struct {
	links[*lane]
	laneKey
	weight int    // waiters to serve in a turn
	left   int    // of them, in this turn
	turn   uint64 // number of the last arrival when its turn ended; 0 before that

	class *class
	place uint64 // in the rotation: of two lanes, the one with the greater comes later
	at    int    // in class.byLoad

	waiters chain[waiter, *waiter]
	n       int
}

func (q *lane) linked() *links[*lane] { return &q.links }

// mostWeight is the greatest weight there is: times the waiters of a lane, it is an int64.
const mostWeight = math.MaxInt32

// front returns the first waiter in line, or nil.
func (l *waitList) front() *waiter {
	if l.classes.first == nil {
		return nil
	}
	return l.classes.first.lanes.first.waiters.first
}

// after returns the waiter that follows w in its list, or nil.
func (w *waiter) after() *waiter {
	switch {
	case w.next != nil:
		return w.next
	case w.lane.next != nil:
		return w.lane.next.waiters.first
	case w.lane.class.next != nil:
		return w.lane.class.next.lanes.first.waiters.first
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
	at := q.waiters.last
	for at != nil && w.number < at.number {
		at = at.prev
	}
	q.waiters.insert(w, at)
	w.list, w.lane = l, q
	l.n++
	q.n++
	q.class.fix(q)
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
	l.class(key.priority).add(q)
	return q
}

// class returns the class of that priority, which may be a new one.
func (l *waitList) class(priority int) *class {
	at := l.classes.last
	for at != nil && at.priority > priority {
		at = at.prev
	}
	if at != nil && at.priority == priority {
		return at
	}
	c := l.classed
	if c == nil {
		c = new(class)
	} else {
		l.classed = c.next
	}
	*c = class{priority: priority, byLoad: c.byLoad}
	l.classes.insert(c, at)
	return c
}

func (l *waitList) remove(w *waiter) {
	q := w.lane
	c := q.class
	q.waiters.remove(w)
	w.list, w.lane = nil, nil
	l.n--
	if q.n--; q.n > 0 {
		c.fix(q)
		return
	}
	delete(l.lanes, q.laneKey)
	c.drop(q)
	*q = lane{links: links[*lane]{next: l.spare}}
	l.spare = q
	if len(c.byLoad) == 0 {
		l.classes.remove(c)
		c.next, l.classed = l.classed, c
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
	if c := q.class; len(c.byLoad) > 1 {
		q.turn = number
		c.lanes.remove(q)
		c.enqueue(q)
		c.fix(q)
	}
}

// excess returns the waiter that has to leave since w has come into a full list: the
// newest one of the tenant that has most waiters for its weight, among those that are
// not served before w. It is w, unless another tenant has more than that of w.
func (l *waitList) excess(w *waiter) *waiter {
	most, out := w.lane, w
	for c := l.classes.last; c != nil && c.priority >= w.priority; c = c.prev {
		if q := c.heaviest(w.tenant); q != nil && q.outweighs(most) {
			most, out = q, q.waiters.last
		}
	}
	return out
}
