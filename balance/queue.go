// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Queue bounds the queues in which requests wait when every server is at its limit.
// There is one queue for the pool and one for each server, for requests that need that
// server. A slot that becomes free goes to the lowest waiting class of
// [Request.Priority], and within the class to the oldest request.
type Queue struct {
	Size      int           // waiters for any server; 0 means 1024, negative means none
	PerServer int           // waiters for one given server; 0 means 128, negative means none
	Timeout   time.Duration // longest wait; 0 means 5s, negative means no limit but the context
	Share     *Share        // whose fleet Size and PerServer are for together: this gateway has its part of them; nil means this one alone
}

// queue is the state of all queues of a core.
type queue struct {
	size, perServer int
	timeout         time.Duration
	share           *Share

	waiting atomic.Int64 // waiters of the pool and of all servers
	pooled  atomic.Int64 // waiters of the pool

	mu   sync.Mutex
	pool waitList
	next uint64 // number of the next waiter
}

func (q *queue) configure(conf *Queue) {
	or := func(v, none int) int {
		if v == 0 {
			return none
		}
		return max(v, 0)
	}
	q.size, q.perServer = or(conf.Size, 1024), or(conf.PerServer, 128)
	q.timeout, q.share = conf.Timeout, conf.Share
	if q.timeout == 0 {
		q.timeout = 5 * time.Second
	}
}

// bound returns the part of a bound that is this gateway's.
func (q *queue) bound(n int) int {
	if q.share == nil {
		return n
	}
	return q.share.Part(n)
}

// A waiter is a request in a queue.
type waiter struct {
	view     *view
	key      uint64
	filter   Filter
	priority int
	number   uint64  // of arrival
	server   *Server // nil: any

	list       *waitList // where it waits; nil: it does not
	prev, next *waiter
	grant      chan grant // has room for one
}

type grant struct {
	server *Server
	ticket uint32
	err    error
}

// before reports whether w is served before o.
func (w *waiter) before(o *waiter) bool {
	if w.priority != o.priority {
		return w.priority < o.priority
	}
	return w.number < o.number
}

// A waitList is a list of waiters in the order of service.
type waitList struct {
	head, tail *waiter
	n          int
}

// insert puts w in its place, which is near the end more often than not.
func (l *waitList) insert(w *waiter) {
	at := l.tail
	for at != nil && w.before(at) {
		at = at.prev
	}
	w.list, w.prev = l, at
	if at == nil {
		w.next, l.head = l.head, w
	} else {
		w.next, at.next = at.next, w
	}
	if w.next == nil {
		l.tail = w
	} else {
		w.next.prev = w
	}
	l.n++
}

func (l *waitList) remove(w *waiter) {
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.list, w.prev, w.next = nil, nil, nil
	l.n--
}

// wait puts req in the queue of fixed, or of the pool if that is nil, and waits for a
// slot.
func (p *Pool) wait(ctx context.Context, req *Request, fixed *Server) (Lease, error) {
	q := &p.core.queue
	w := &waiter{view: &p.view, key: req.Key, filter: req.tried, priority: req.Priority, server: fixed, grant: make(chan grant, 1)}
	w.filter.full = needSlot
	err := q.enter(w)
	p.core.panics.log()
	if err != nil {
		return Lease{}, err
	}
	select {
	case g := <-w.grant:
		return req.lease(g)
	default:
	}
	var timeout <-chan time.Time
	if q.timeout > 0 {
		t := time.NewTimer(q.timeout)
		defer t.Stop()
		timeout = t.C
	}
	start := time.Now()
	defer func() { p.core.counters.waited(time.Since(start)) }()
	select {
	case g := <-w.grant:
		return req.lease(g)
	case <-timeout:
		err = ErrQueueTimeout
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	left := q.leave(w)
	p.core.panics.log()
	if left {
		return Lease{}, err
	}
	return req.lease(<-w.grant) // a slot came at the same time: use it
}

// lease makes a lease of what came out of the queue.
func (r *Request) lease(g grant) (Lease, error) {
	if g.err != nil {
		return Lease{}, g.err
	}
	l := Lease{s: g.server, flags: leaseQueued, ticket: g.ticket}
	if r.Prefer != "" && g.server.name == r.Prefer {
		l.flags |= leasePreferred
	}
	return l, nil
}

// enter puts w into its queue, unless that has no room or w has no hope. It may be
// granted a slot at once.
func (q *queue) enter(w *waiter) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := w.server; s != nil && admission(s.open.Load()) < persistent {
		w.server = nil // it has just closed
	}
	if w.server == nil && !w.view.snap.Load().eligible(w.key, w.filter) {
		return ErrNoServer
	}
	q.next++
	w.number = q.next
	q.add(w)
	q.try(w)
	q.follow(w.view.snap.Load().core) // it counts as load
	if w.list == nil {
		return nil
	}
	room := q.bound(q.size)
	if w.server != nil {
		room = w.server.maxQueue()
	}
	if w.list.n > room {
		q.remove(w)
		return ErrQueueFull
	}
	return nil
}

// leave takes w out of its queue and reports whether it was there.
func (q *queue) leave(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.list == nil {
		return false
	}
	q.remove(w)
	return true
}

func (q *queue) add(w *waiter) {
	q.waiting.Add(1)
	if s := w.server; s != nil {
		s.queue.insert(w)
		s.queuedBy(1)
	} else {
		q.pool.insert(w)
		q.pooled.Add(1)
	}
}

func (q *queue) remove(w *waiter) {
	w.list.remove(w)
	q.waiting.Add(-1)
	if s := w.server; s != nil {
		s.queuedBy(-1)
	} else {
		q.pooled.Add(-1)
	}
}

// queuedBy changes the number of requests that wait for s.
func (s *Server) queuedBy(n int64) {
	s.queued.Add(n)
	if h := s.core.hooks.Load(); h != nil {
		h.changed(s)
	}
}

// try looks for a slot that w could use and gives it to the first waiter in line.
func (q *queue) try(w *waiter) {
	for w.list != nil {
		s := w.server
		if s == nil {
			s = w.view.snap.Load().pick(w.key, w.filter)
		}
		if s == nil || !q.give(s) {
			return
		}
	}
}

// dispatch gives the free slots of s to waiters.
func (q *queue) dispatch(s *Server) {
	q.mu.Lock()
	for q.give(s) {
	}
	q.mu.Unlock()
	s.core.panics.log()
}

// give gives one free slot of s to the first waiter, if there are both, and reports
// whether it did. q.mu is held.
func (q *queue) give(s *Server) bool {
	w := q.first(s)
	if w == nil {
		return false
	}
	need := balanced
	if w.server != nil {
		need = persistent
	} else if better := w.view.snap.Load().within(s, w); better != nil && q.grant(w, better, need) {
		return true
	}
	return q.grant(w, s, need)
}

// grant takes a slot of s for w. q.mu is held.
func (q *queue) grant(w *waiter, s *Server, need admission) bool {
	ticket, how := s.take(need, 0, true)
	if how != taken {
		return false
	}
	q.remove(w)
	w.grant <- grant{server: s, ticket: ticket}
	return true
}

// first returns the waiter that gets the next slot of s. At equal rank those that
// wait for s only come first.
func (q *queue) first(s *Server) *waiter {
	own := s.queue.head
	if admission(s.open.Load()) < balanced {
		return own
	}
	for w := q.pool.head; w != nil; w = w.next {
		if own != nil && !w.before(own) {
			return own
		}
		if w.mayUse(s) {
			return w
		}
	}
	return own
}

// mayUse reports whether w, which waits for any server, may be given s.
func (w *waiter) mayUse(s *Server) bool {
	sn := w.view.snap.Load()
	if w.filter.has(s) {
		return false
	}
	return sn.holds(s, false) || sn.holds(s, true) && sn.exhausted(w.key, w.filter)
}

// handOn moves the waiters for s, which is closed, to the queue of the pool. They
// keep their rank.
func (q *queue) handOn(s *Server) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s.queue.head != nil {
		w := s.queue.head
		q.remove(w)
		w.server = nil
		q.add(w)
	}
}

// risen is follow for a lease that was taken.
func (q *queue) risen(c *core) {
	if q.waiting.Load() != 0 {
		q.mu.Lock()
		q.follow(c)
		q.mu.Unlock()
		c.panics.log()
	}
}

// follow gives the slots that there are because the load of the pool has risen, and with
// it the limits of servers with MinConns. q.mu is held.
func (q *queue) follow(c *core) {
	if !c.dynamic.Load() || q.waiting.Load() == 0 {
		return
	}
	for _, s := range c.set.Load().members {
		for s.minLimit.Load() > 0 && q.give(s) {
		}
	}
}

// review checks the waiters after servers have changed: those without a possible
// server fail, and those with a free slot continue.
func (q *queue) review(c *core, touched []*Server) {
	if q.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.pool.head; w != nil; {
		next := w.next
		if !w.view.snap.Load().eligible(w.key, w.filter) {
			q.remove(w)
			w.grant <- grant{err: ErrNoServer}
		}
		w = next
	}
	for w := q.pool.head; w != nil; {
		if q.try(w); w.list != nil {
			w = w.next
		} else {
			w = q.pool.head // the next one may be gone too
		}
	}
	// Waiters for any server come first, so that the policy spreads them: otherwise
	// the first of many servers that come back would get them all.
	for _, s := range touched {
		for q.give(s) {
		}
	}
	q.follow(c)
}
