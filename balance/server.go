// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock"
)

// A Server is the live handle of one member of a [Pool]. It lives as long as its name
// stays in the set, whatever else changes. All methods may be called by many goroutines
// at once.
type Server struct {
	// What every lease reads and writes comes first, on one cache line, together with
	// what is read then and seldom written: 56 bytes, as the allocator may put 8 before.
	inflight atomic.Int64
	limit    atomic.Int64 // most leases at once, slow start applied; 0 means none; on trial -1 less that
	queued   atomic.Int64
	core     *core
	drainers atomic.Pointer[chan struct{}] // closed when the last lease ends
	open     atomic.Uint32                 // an admission
	slot     int32                         // index, dense and unique in the pool; reused once the server has left
	outcomes [classes]atomic.Uint64        // OK is the last on the line
	peak     atomic.Uint64                 // of PeakEWMA
	hist     atomic.Pointer[histogram]
	_        [cacheLine]byte

	name     string
	ep       atomic.Pointer[Endpoint]
	state    atomic.Uint32
	minLimit atomic.Int64 // floor of a dynamic limit; 0 means static
	trial    atomic.Pointer[trial]
	tickets  atomic.Uint32 // last one given; even
	values   values        // of every PerServer that was asked
	loads    loadCells     // see ReportLoad

	mu       sync.Mutex // guards attached
	attached map[Attached]struct{}

	// Guarded by core.mu.
	status    status
	since     time.Time  // of the present state; zero before it has one
	spent     StateTimes // in the states before it
	warmFrom  time.Time  // start of the ramp
	maxConns  int        // as configured, or by SetMaxConns; 0 means no limit
	seen      uint64     // the transaction that saw it last
	published State      // the last one that took effect
	cold      bool       // is to start a ramp
	factor    float64    // of slow start, in (0, 1]

	queue waitList // requests that wait for this server only; guarded by core.queue.mu
}

// admission says which leases may be taken. It is checked again after a slot was taken,
// so that nobody with an old snapshot slips in once Drain has looked.
type admission uint32

const (
	shut       admission = iota
	persistent           // for requests that prefer this server
	balanced
)

// Name returns the identity of s within the pool.
func (s *Server) Name() string { return s.name }

// Addr returns the address of s, as in [Endpoint.Addr].
func (s *Server) Addr() string { return s.ep.Load().Addr }

// Endpoint returns the endpoint of s as it was last given to [Pool.Set], without what
// SetMaxConns and SetWeight have changed since: see [Server.Limit], and Weights of [View].
// Labels must not be changed.
func (s *Server) Endpoint() Endpoint { return *s.ep.Load() }

// Value returns [Endpoint.Value].
func (s *Server) Value() any { return s.ep.Load().Value }

// InFlight returns how many leases on s are not done.
func (s *Server) InFlight() int { return int(s.inflight.Load()) }

// Limit returns how many leases s may have at once now: its MaxConns, or what
// [Server.SetMaxConns] has set, less in slow start and by [Endpoint.MinConns]. It is never
// negative; 0 means no limit. InFlight may be above it: leases end by themselves when it falls,
// and a request that tries a server out comes on top of it. A [Picker] asks for it in Pick: it
// changes without a new [View].
func (s *Server) Limit() int { return int(s.capacity()) }

// Queued returns how many requests wait for s only.
func (s *Server) Queued() int { return int(s.queued.Load()) }

// Usable reports whether s takes new work, as far as its own state goes.
func (s *Server) Usable() bool { return s.State().usable() }

// State returns the state of s.
func (s *Server) State() State { return State(s.state.Load()) }

// String returns the name.
func (s *Server) String() string { return s.name }

// setOpen changes which leases s gives, if that is news: the line is hot.
func (s *Server) setOpen(o admission) {
	if admission(s.open.Load()) != o {
		s.open.Store(uint32(o))
	}
}

// load is the work of s, which policies such as LeastConn compare.
func (s *Server) load() int64 { return s.inflight.Load() + s.queued.Load() }

// capacity returns how many leases s may hold now; 0 means no limit. A trial comes on
// top of it.
func (s *Server) capacity() int64 {
	limit := s.limit.Load()
	if limit < 0 {
		limit = -1 - limit
	}
	if limit == 0 {
		return 0
	}
	if floor := s.minLimit.Load(); floor > 0 {
		limit = s.core.dynamicLimit(floor, limit)
	}
	return limit
}

// roomy reports whether s has the room that rule asks for.
func (s *Server) roomy(rule fullRule) bool {
	limit := s.capacity()
	free := limit == 0 || s.inflight.Load() < limit && s.queued.Load() == 0
	if free && (!s.onTrial() || s.trialRoom() && s.queued.Load() == 0) {
		return true
	}
	return rule == needPlace && s.queued.Load() < int64(s.maxQueue())
}

// maxQueue returns how many may wait for s.
func (s *Server) maxQueue() int {
	if n := s.ep.Load().MaxQueue; n != 0 {
		return max(n, 0)
	}
	return s.core.queue.bound(s.core.queue.perServer)
}

// A takeResult says how an attempt to take a slot ended.
type takeResult uint8

const (
	taken  takeResult = iota
	full              // no slot
	closed            // the server is not open to this request
)

// take takes a slot of s if there is one below its limit and below bound. A bound of 0
// is none. The ticket is that of a trial. Locked says that queue.mu is held.
func (s *Server) take(need admission, bound int64, locked bool) (ticket uint32, how takeResult) {
	limit := s.limit.Load()
	if limit < 0 {
		if ticket, how = s.takeTicket(); how != taken {
			return 0, how
		}
	}
	if limit != 0 {
		limit = s.capacity()
	}
	if limit == 0 || bound > 0 && bound < limit {
		limit = bound
	}
	if limit == 0 {
		s.inflight.Add(1)
	} else if !s.takeBelow(limit) {
		if ticket != 0 {
			s.freeTicket(ticket, locked)
		}
		return 0, full
	}
	// Checked after the slot was taken: either this sees that the server is closed, or
	// the call that closed it sees the lease.
	if admission(s.open.Load()) < need {
		s.turnAway(ticket, locked)
		return 0, closed
	}
	s.core.active.add(s.slot, 1)
	if h := s.core.hooks.Load(); h != nil {
		h.changed(s)
		if !locked {
			s.core.panics.log()
			if h.dynamic {
				s.core.queue.risen(s.core)
			}
		}
	}
	return ticket, taken
}

// turnAway gives back a slot, and the place of a trial, that were taken before the
// server was seen to be closed.
func (s *Server) turnAway(ticket uint32, locked bool) {
	s.giveBack()
	s.freeTicket(ticket, locked)
}

// takeBelow takes a slot if fewer than limit are taken.
func (s *Server) takeBelow(limit int64) bool {
	for {
		n := s.inflight.Load()
		if n >= limit {
			return false
		}
		if s.inflight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// giveBack gives a slot back without serving the queue.
func (s *Server) giveBack() {
	n := s.inflight.Add(-1)
	if n < 0 {
		panic("balance: Lease.Done called more often than there were leases")
	}
	if n == 0 && s.drainers.Load() != nil {
		s.wakeDrainers()
	}
}

// release ends a lease: it gives the slot back, to a waiting request if there is one.
func (s *Server) release(ticket uint32) {
	s.giveBack()
	c := s.core
	c.active.add(s.slot, -1)
	if ticket != 0 {
		s.trial.Load().free(ticket)
	}
	// As freed does, without a call of it where nothing listens.
	if h := c.hooks.Load(); h != nil {
		h.changed(s)
		c.panics.log()
	}
	if c.queue.waiting.Load() != 0 {
		c.queue.dispatch(s)
	}
}

// freed tells of room for one more lease. Locked says that queue.mu is held: then those
// who wait are not looked for, as whoever holds it does that.
func (s *Server) freed(locked bool) {
	c := s.core
	if h := c.hooks.Load(); h != nil {
		h.changed(s)
		if !locked {
			c.panics.log()
		}
	}
	// Whoever waits first says so and then looks for a slot; here the slot is first
	// given and then waiters are looked for. So one sees the other.
	if !locked && c.queue.waiting.Load() != 0 {
		c.queue.dispatch(s)
	}
}

// Report sets the health of s as seen by the observer c, with the reason. It
// takes effect at once; reporting the same health again is cheap.
//
// It panics if c is above [MaxReporter]. A report on a server that has left has no
// effect.
func (s *Server) Report(c Reporter, h Health, reason string) {
	if c > MaxReporter {
		panic("balance: no such reporter")
	}
	s.core.change(s, func(now time.Time) { s.status.report(Report{c, h, reason, now}) })
}

// SetAdmin sets the operator's state of s, with the reason. See [Server.Drain] to wait
// until the work in flight is done.
func (s *Server) SetAdmin(a Admin, reason string) {
	s.core.change(s, func(now time.Time) { s.status.administer(Operator{a, reason, now}) })
}

// SetWeight changes the weight of s until [Pool.Set] sets another one. Here 0 means
// none: persistent traffic only.
func (s *Server) SetWeight(w int) error {
	if w < 0 || w > MaxWeight {
		return &penstock.ConfigError{Field: "SetWeight", Value: w, Reason: "must be between 0 and MaxWeight"}
	}
	s.core.change(s, func(time.Time) { s.status.weight = w })
	return nil
}

// SetMaxConns changes the limit of s until [Pool.Set] sets another one; 0 means no
// limit. Leases above a lowered limit are not interrupted.
func (s *Server) SetMaxConns(n int) error {
	if n < 0 {
		return &penstock.ConfigError{Field: "SetMaxConns", Value: n, Reason: "must not be negative"}
	}
	s.core.change(s, func(time.Time) { s.maxConns = n })
	return nil
}

// Drain sets the admin state to [Drain] and waits for the last lease to end. It returns
// ctx's error if ctx ends first; s stays in Drain then. To cut what is left at the
// deadline:
//
//	if err := s.Drain(ctx); err != nil {
//		s.Cut(true, "drain deadline")
//	}
//
// Persistent clients (l7.Persist, l7.Stick, l4.Sticky) still come to a server in Drain, also
// after Drain has returned. Before it is stopped, move them to others, without the loss of a
// request:
//
//	s.SetAdmin(balance.Maint, "deploy")
//	err := s.WaitIdle(ctx)
func (s *Server) Drain(ctx context.Context) error {
	s.SetAdmin(Drain, "draining")
	return s.WaitIdle(ctx)
}

// WaitIdle waits for the last lease to end, and returns ctx's error if ctx ends first. It
// keeps no new leases from being taken: that is for [Server.SetAdmin].
func (s *Server) WaitIdle(ctx context.Context) error {
	for {
		ch := s.drainers.Load()
		if ch == nil {
			fresh := make(chan struct{})
			if ch = &fresh; !s.drainers.CompareAndSwap(nil, ch) {
				continue
			}
		}
		if s.inflight.Load() == 0 {
			s.wakeDrainers()
			return nil
		}
		select {
		case <-*ch:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) wakeDrainers() {
	if ch := s.drainers.Swap(nil); ch != nil {
		close(*ch)
	}
}
