// SPDX-License-Identifier: Apache-2.0

package balance

import "time"

// A snapshot is what a pick needs. It never changes once it is published.
type snapshot struct {
	core   *core
	set    *set
	groups []group
	// chosen holds, by slot, the servers that may be given to requests in the queue;
	// spare has those of the tiers that serve only when no other does.
	chosen, spare []*Server

	usable  int
	limited bool // some server has a limit
	keyed   bool // the pick follows from the key
	rand    Rand
}

// change runs f, which changes what is said of s, and lets it take effect.
func (c *core) change(s *Server, f func(now time.Time)) {
	c.mu.Lock()
	now := time.Now()
	was := s.settings()
	f(now)
	if is := s.settings(); is != was {
		if is.maxConns != was.maxConns {
			c.fullConns.Store(c.conf.fullConns(c.set.Load().members))
		}
		c.publish([]*Server{s}, now)
	}
	c.unlock()
}

// settings is what of a server decides on picks.
type settings struct {
	state            State
	admin            Admin // in a panic it counts even if the state is Down
	weight, maxConns int
	trial            bool
}

// settings returns those of s. c.mu is held.
func (s *Server) settings() settings {
	return settings{s.status.state(), s.status.operator.Admin, s.status.weight, s.maxConns, s.trial.Load() != nil}
}

// publish lets changes of servers take effect: state, events, limits, snapshots. c.mu
// is held.
func (c *core) publish(changed []*Server, now time.Time) {
	for _, s := range changed {
		c.updateState(s, now)
	}
	c.touched = append(c.touched, changed...)
	c.ramps(now)
	forced := c.forced
	c.forced = make(map[*Server]bool)
	for _, v := range c.views {
		c.rebuild(v)
	}
	// Servers are opened before the new snapshots refer to them, and closed before
	// their waiters are moved.
	for s := range c.forced {
		s.setOpen(balanced)
	}
	for s := range forced {
		if c.reopen(s); !c.forced[s] && s.published == StateDown {
			c.cuts = append(c.cuts, cut{s, s.status.reason()})
		}
	}
	for _, s := range changed {
		c.reopen(s)
	}
	for s := range forced {
		c.handOn(s)
	}
	for _, s := range changed {
		c.handOn(s)
	}
	c.rehook()
}

// handOn moves the waiters for s to the pool's queue if s is closed.
func (c *core) handOn(s *Server) {
	if !s.published.persistent() && !c.forced[s] {
		c.queue.handOn(s)
	}
}

// reopen lets s give the leases that its state allows, or panic.
func (c *core) reopen(s *Server) {
	if !c.forced[s] {
		s.setOpen(s.published.admission())
	}
}

// updateState brings the published state of s in line with its status.
func (c *core) updateState(s *Server, now time.Time) {
	was := s.published
	back := !was.persistent() && s.status.weight > 0 // from Down, Maint or nowhere
	if state := s.status.state(); (back || s.cold) && state.usable() && c.conf.SlowStart.Window > 0 {
		s.warmFrom, s.status.warming = now, true
	} else if !state.persistent() {
		s.status.warming, s.factor = false, 1
	}
	s.cold = false
	state := s.status.state()
	if state == was {
		return
	}
	if !s.since.IsZero() {
		s.spent[was] += max(0, now.Sub(s.since))
	}
	s.published, s.since = state, now
	s.state.Store(uint32(state))
	c.emit(Event{Kind: kindOf(was, state), Server: s, From: was, To: state, Reason: s.status.reason(), Time: now})
	if state == StateDown {
		c.doubts.raise()
	}
	if !state.persistent() {
		c.cuts = append(c.cuts, cut{s, s.status.reason()})
	}
}

// admission returns which leases a server in state s gives.
func (s State) admission() admission {
	switch {
	case s.usable():
		return balanced
	case s.persistent():
		return persistent
	}
	return shut
}

// rebuild makes a new snapshot for v. c.mu is held.
func (c *core) rebuild(v *view) {
	sn := &snapshot{core: c, set: v.set.Load(), rand: v.rand(c.conf.Seed)}
	for _, s := range sn.set.members {
		if s.published.usable() {
			sn.usable++
		}
		sn.limited = sn.limited || s.maxConns > 0 || s.trial.Load() != nil
	}
	parts, panicky := c.parts(sn.set.members)
	for i, part := range parts {
		if i == len(v.cursors) {
			v.cursors = append(v.cursors, new(Cursor))
		}
		sn.groups = append(sn.groups, c.group(part, v, i, sn.rand))
	}
	sn.choose(len(c.slots), c.conf.Tiers.Overflow)
	v.next = sn
	if panicky != v.panicky {
		v.panicky = panicky
		c.emitPanic(panicky)
	}
}

// rehook tells the new pickers of v about leases, and publishes the snapshots. The
// order matters: a picker that follows the load must hear of every change after it has
// looked. c.mu is held.
func (c *core) rehook() {
	h := &hooks{funcs: c.conf.OnOutcome, dynamic: c.dynamic.Load()}
	var fresh []changer
	for _, v := range c.views {
		sn := v.next
		for i := range sn.groups {
			p := sn.groups[i].picker
			if ch, ok := p.(changer); ok {
				if _, own := p.(ownPicker); own {
					h.own = append(h.own, ch)
				} else {
					h.changers = append(h.changers, ch)
				}
				if !sn.groups[i].kept {
					fresh = append(fresh, ch)
				}
			}
			if o, ok := p.(observer); ok {
				h.observers = append(h.observers, o)
			}
		}
	}
	if len(h.own)+len(h.changers)+len(h.observers)+len(h.funcs) == 0 && !h.dynamic {
		h = nil
	}
	c.hooks.Store(h)
	for _, s := range c.slots {
		if s != nil {
			for _, ch := range fresh {
				tellChanged(ch, s)
			}
		}
	}
	for _, v := range c.views {
		v.snap.Store(v.next)
		v.next = nil
	}
}

// hooks are the receivers of lease events.
type hooks struct {
	own       []changer // pickers of this package, which need no guard against panics
	changers  []changer
	observers []observer
	funcs     []func(*Server, Outcome)
	dynamic   bool // a lease may raise limits
}

func (h *hooks) changed(s *Server) {
	for _, c := range h.own {
		c.Changed(s)
	}
	for _, c := range h.changers {
		tellChanged(c, s)
	}
}

func (h *hooks) done(s *Server, o Outcome) {
	for _, obs := range h.observers {
		observeOutcome(obs, s, o)
	}
	for _, f := range h.funcs {
		tellOutcome(f, s, o)
	}
}
