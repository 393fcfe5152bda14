// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Pool is a set of servers that can do the same work, with the policy that picks
// one. The zero value is a pool without servers. After first use a Pool must not be
// copied, and its exported fields must not change. All methods may be called by many
// goroutines at once.
//
// A Pool starts no goroutine. While servers are in slow start it keeps one timer.
type Pool struct {
	Name   string // for events and records
	Policy Policy // nil means TwoChoices{}

	Queue     Queue     // where requests wait when every server is full
	WhenFull  WhenFull  // what a hashed or persistent request does when its server is full
	SlowStart SlowStart // zero means none
	Tiers     Tiers     // when backups serve
	Locality  Locality  // zero means that zones do not count
	Budget    Budget    // of retries

	// Panic is the share of usable servers, by weight, below which a tier uses all its
	// servers: if many health checks fail at once, the checker is probably at fault.
	// It applies only if the other tiers cannot take over. 0 means never; at most 1.
	// Drained servers are not used. (Envoy, "Panic threshold".)
	Panic float64

	// FullConns is the number of concurrent requests from which every server with
	// MinConns uses its full MaxConns; below that its limit is proportional, but at
	// least MinConns. 0 means the sum of all MaxConns. (HAProxy, fullconn.)
	FullConns int

	// Unproven makes each new server begin as Down by the reporter Check, so that it
	// gets no work until a check has reported it Up.
	Unproven bool

	// AllowEmpty lets Follow empty the pool when its source has no endpoints, for
	// example because its name was removed. Without it the last servers stay, without a
	// time limit; SourceState and Explain report that. Set may always empty a pool.
	AllowEmpty bool

	OnOutcome []func(*Server, Outcome) // called by Lease.Done, without a lock; must not block; funcs added after the first Set are called from the next HasOnOutcome on, as health.Outlier and health.Checker call it in Run
	OnEvent   func(Event)              // called in order of events, without a lock; must not block

	Seed uint64 // of all random choices, Follow's pauses too; 0 means seeded at random

	once sync.Once
	core *core // shared with what Subset and WithPolicy made of this pool
	view
}

// core is shared by a pool and the pools derived from it.
type core struct {
	conf    *Pool     // the configuration, of the pool that Set was called on
	born    time.Time // what PeakEWMA counts from
	queue   queue
	retries retryBudget
	hooks   atomic.Pointer[hooks] // nil if there are none
	doubts  doubts
	source  atomic.Pointer[SourceState] // nil: nothing is followed
	set     atomic.Pointer[set]
	active  tally // leases

	counters counters

	fullConns atomic.Int64
	dynamic   atomic.Bool // some limit follows the load, see Endpoint.MinConns

	mu       sync.Mutex
	views    []*view // the pool's own first
	leaving  map[string]*Server
	gone     ServerStats // of servers that have left for good
	slots    []*Server   // by Server.slot
	free     []int32     // slots
	pass     uint64      // number of the Set
	ramp     *time.Timer
	events   []Event
	cuts     []cut
	touched  []*Server        // may have room for waiters now
	forced   map[*Server]bool // in use because of panic, whatever their state
	flushing bool
	watchers []*func() // never changed in place

	panics hostPanics // of calls under mu or queue.mu
}

// set is an immutable list of members.
type set struct {
	members []*Server
	byName  map[string]*Server
}

// view is one Pool's part of the core: all of it, or a subset,
// maybe with a policy of its own.
type view struct {
	match   func(Endpoint) bool // nil matches all
	policy  Policy              // nil: that of the core
	snap    atomic.Pointer[snapshot]
	set     atomic.Pointer[set]
	cursors []*Cursor // by number of group
	draws   *Cursor   // state of seeded random numbers
	panicky bool      // guarded by core.mu
	next    *snapshot // to be published; guarded by core.mu
}

// init makes p usable; the first method called does.
func (p *Pool) init() {
	p.once.Do(func() {
		if p.core != nil {
			return // a subset
		}
		c := &core{conf: p, born: time.Now(), leaving: make(map[string]*Server)}
		c.queue.configure(&p.Queue)
		c.set.Store(new(set))
		p.core = c
		p.view.set.Store(new(set))
		p.view.snap.Store(&snapshot{core: c, set: new(set)})
		c.views = []*view{&p.view}
	})
}

// rand returns the source of random numbers of v.
func (v *view) rand(seed uint64) Rand {
	if seed == 0 {
		return Rand{}
	}
	if v.draws == nil {
		v.draws = new(Cursor)
	}
	return Rand{seed: seed, n: v.draws}
}

// All yields every member, usable or not, in the order of Set.
func (p *Pool) All() iter.Seq[*Server] {
	p.init()
	return slices.Values(p.view.set.Load().members)
}

// Server returns the member of that name, or nil.
func (p *Pool) Server(name string) *Server {
	p.init()
	return p.view.set.Load().byName[name]
}

// Usable returns how many members take new work now.
func (p *Pool) Usable() int {
	p.init()
	return p.snap.Load().usable
}

// Subset returns a pool of those members that match. It shares the servers, their
// state, the queue and all settings with p, so that limits hold over both, and follows
// each Set of p. Set on a subset is an error. A subset lives as long as p: make it
// once, not per request. Match is called for each server at each Set, under the lock of
// p: it must call no method of a pool.
func (p *Pool) Subset(match func(Endpoint) bool) *Pool {
	p.init()
	if outer := p.match; outer != nil {
		inner := match
		match = func(e Endpoint) bool { return outer(e) && inner(e) }
	}
	return p.core.derive(p.Name, match, p.policy)
}

// WithPolicy returns a pool of the same members with another policy, for example a
// hash for one route over the servers that other routes use round robin. In all other
// respects it is a [Pool.Subset]. A nil policy means TwoChoices{}.
func (p *Pool) WithPolicy(policy Policy) *Pool {
	p.init()
	if policy == nil {
		policy = TwoChoices{}
	}
	return p.core.derive(p.Name, p.match, policy)
}

// derive adds a view to c.
func (c *core) derive(name string, match func(Endpoint) bool, policy Policy) *Pool {
	sub := &Pool{Name: name, core: c}
	sub.match, sub.policy = match, policy
	c.mu.Lock()
	c.views = append(c.views, &sub.view)
	sub.view.members(c.set.Load(), &c.panics)
	c.publish(nil, time.Now())
	c.unlock()
	return sub
}

// members makes v's own list of members out of all of them.
func (v *view) members(all *set, panics *hostPanics) {
	if v.match == nil {
		v.set.Store(all)
		return
	}
	own := &set{byName: make(map[string]*Server)}
	for _, s := range all.members {
		if panics.matches(v.match, s.Endpoint()) {
			own.members = append(own.members, s)
			own.byName[s.name] = s
		}
	}
	v.set.Store(own)
}

// clone copies the parts of e that the host might change.
func (e Endpoint) clone() *Endpoint {
	e.Labels = maps.Clone(e.Labels)
	return &e
}

// tally counts the leases of a pool. It is spread over several cache lines, because
// every lease writes it twice; only the sum means something.
type tally struct {
	lanes [16]struct {
		_ [cacheLine - 8]byte
		n atomic.Int64
	}
	_ [cacheLine]byte
}

func (t *tally) add(lane int32, n int64) { t.lanes[uint32(lane)%uint32(len(t.lanes))].n.Add(n) }

func (t *tally) sum() int64 {
	var sum int64
	for i := range t.lanes {
		sum += t.lanes[i].n.Load()
	}
	return max(sum, 0)
}
