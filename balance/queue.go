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
//
// Where requests have a [Request.Tenant], it is a fair queue: within a class the tenants
// take turns, and the slot goes to the oldest request of the tenant whose turn it is. So
// a request of a tenant that has no other waiting waits for at most one turn of each
// tenant before it, however many requests those have. When a request comes into a full
// queue, the newest request of the tenant that has most waiting, measured by its weight,
// gets ErrQueueFull; that may be the request itself. Requests without a tenant count as
// those of one tenant.
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
	tenant   uint64
	weight   int     // of the tenant
	number   uint64  // of arrival
	server   *Server // nil: any

	list           *waitList  // where it waits; nil: it does not
	lane           *lane      // of list
	links[*waiter]            // of lane
	grant          chan grant // has room for one
}

func (w *waiter) linked() *links[*waiter] { return &w.links }

type grant struct {
	server *Server
	ticket uint32
	err    error
}

// wait puts req in the queue of fixed, or of the pool if that is nil, and waits for a
// slot.
func (p *Pool) wait(ctx context.Context, req *Request, fixed *Server) (Lease, error) {
	q := &p.core.queue
	w := &waiter{view: &p.view, key: req.Key, filter: req.tried, priority: req.Priority, tenant: req.Tenant, weight: req.TenantWeight, server: fixed, grant: make(chan grant, 1)}
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
	if w.list.n <= room {
		return nil
	}
	out := w.list.excess(w)
	q.remove(out)
	if out == w {
		return ErrQueueFull
	}
	out.grant <- grant{err: ErrQueueFull}
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
	w.list.served(w, q.next)
	q.remove(w)
	w.grant <- grant{server: s, ticket: ticket}
	return true
}

// first returns the waiter that gets the next slot of s. At equal rank those that
// wait for s only come first.
func (q *queue) first(s *Server) *waiter {
	own := s.queue.front()
	if admission(s.open.Load()) < balanced {
		return own
	}
	for w := q.pool.front(); w != nil; w = w.after() {
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
	for w := s.queue.front(); w != nil; w = s.queue.front() {
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
	for w := q.pool.front(); w != nil; {
		next := w.after()
		if !w.view.snap.Load().eligible(w.key, w.filter) {
			q.remove(w)
			w.grant <- grant{err: ErrNoServer}
		}
		w = next
	}
	for w := q.pool.front(); w != nil; {
		if q.try(w); w.list != nil {
			w = w.after()
		} else {
			w = q.pool.front() // the next one may be gone too
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
