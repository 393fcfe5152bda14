// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"slices"
	"time"

	"github.com/penstock-lb/penstock"
)

// Set replaces the members of p by endpoints, in one step. Servers are identified by
// name. One that stays keeps its state, counters and leases. A new one starts, in slow
// start if that is set. A removed one takes no more work, its queue moves to the queue of
// the pool, and it ends with its last lease. If its name comes back before that, it keeps
// its leases and counters, but not its health, nor the effects of SetAdmin, SetTrial,
// SetWeight and SetMaxConns.
//
// A change of weight or limits here replaces the values of SetWeight and
// SetMaxConns. A change of address closes idle connections and starts a new slow
// start.
//
// The error has a [*penstock.ConfigError] for each wrong field, of an endpoint
// or of p itself. Nothing changes then.
func (p *Pool) Set(endpoints ...Endpoint) error {
	p.init()
	if p.core.conf != p {
		return p.subsetError()
	}
	if err := p.check(endpoints); err != nil {
		return err
	}
	c := p.core
	c.mu.Lock()
	before := c.set.Load()
	c.assign(endpoints, time.Now())
	changed := c.set.Load() != before
	c.unlock()
	if changed {
		c.tellWatchers()
	}
	return nil
}

// subsetError says that p is a subset.
func (p *Pool) subsetError() error {
	return &penstock.ConfigError{Field: "Pool", Value: p.Name, Reason: "is a subset: its members are set on the pool it was made of"}
}

// check returns what is wrong with p or the endpoints.
func (p *Pool) check(endpoints []Endpoint) error {
	var m penstock.Mistakes
	m.Add("", p.Check())
	names := make(map[string]int, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		if err := e.Check(); err != nil {
			m.Add(fmt.Sprintf("Endpoints[%d]", i), err)
			continue
		}
		if j, dup := names[e.name()]; dup {
			m.If(true, fmt.Sprintf("Endpoints[%d].Name", i), e.name(), fmt.Sprintf("is already the name of Endpoints[%d]", j))
		}
		names[e.name()] = i
	}
	return m.Err()
}

// assign is the transaction of Set. c.mu is held.
func (c *core) assign(endpoints []Endpoint, now time.Time) {
	old := c.set.Load()
	c.pass++
	same := len(endpoints) == len(old.members) // members and their order
	members := make([]*Server, len(endpoints))
	var changed []*Server
	for i := range endpoints {
		e := &endpoints[i]
		s := old.byName[e.name()]
		switch {
		case s == nil:
			s = c.join(e, now)
			changed = append(changed, s)
		case !e.equal(s.ep.Load()):
			c.amend(s, e)
			changed = append(changed, s)
		}
		s.seen = c.pass
		members[i] = s
		same = same && old.members[i] == s
	}
	for _, s := range old.members {
		if s.seen != c.pass {
			s.status.left = true
			c.leaving[s.name] = s
			changed = append(changed, s)
		}
	}
	if same && len(changed) == 0 {
		return
	}
	next := &set{members: members, byName: old.byName}
	if !same {
		next.byName = make(map[string]*Server, len(members))
		for _, s := range members {
			next.byName[s.name] = s
		}
	}
	c.set.Store(next)
	c.dynamic.Store(slices.ContainsFunc(members, func(s *Server) bool { return s.minLimit.Load() > 0 }))
	for _, v := range c.views {
		v.members(next, &c.panics)
	}
	c.fullConns.Store(c.conf.fullConns(members))
	c.publish(changed, now)
	c.forget()
}

// join makes a server of e, or takes back one that is leaving.
func (c *core) join(e *Endpoint, now time.Time) *Server {
	if s := c.leaving[e.name()]; s != nil {
		delete(c.leaving, s.name)
		// Its leases and figures go on; what was said of it is forgotten, and weight
		// and limit are those of the endpoint, as it would be had it been gone for a
		// moment longer.
		s.status, s.maxConns = status{weight: e.weight()}, max(e.MaxConns, 0)
		s.trial.Store(nil)
		c.unproven(s, now)
		if !e.equal(s.ep.Load()) {
			c.amend(s, e)
		}
		return s
	}
	s := &Server{name: e.name(), core: c, since: now}
	s.ep.Store(e.clone())
	s.status.weight, s.maxConns = e.weight(), max(e.MaxConns, 0)
	s.minLimit.Store(int64(e.MinConns))
	s.published = StateLeft // so that publish sees it come
	s.state.Store(uint32(StateLeft))
	s.factor = 1
	c.unproven(s, now)
	s.slot = c.freeSlot()
	c.slots[s.slot] = s
	return s
}

// unproven applies Pool.Unproven to a server that joins.
func (c *core) unproven(s *Server, now time.Time) {
	if c.conf.Unproven {
		s.status.report(Report{Check, Down, "not checked yet", now})
	}
}

// freeSlot returns the index of a free slot.
func (c *core) freeSlot() int32 {
	if n := len(c.free); n > 0 {
		slot := c.free[n-1]
		c.free = c.free[:n-1]
		return slot
	}
	c.slots = append(c.slots, nil)
	return int32(len(c.slots) - 1)
}

// amend applies what e says differently from the endpoint of s.
func (c *core) amend(s *Server, e *Endpoint) {
	was := s.ep.Load()
	if e.Weight != was.Weight {
		s.status.weight = e.weight()
	}
	if e.MaxConns != was.MaxConns {
		s.maxConns = max(e.MaxConns, 0)
	}
	s.minLimit.Store(int64(e.MinConns))
	s.ep.Store(e.clone())
	if e.Addr != was.Addr {
		c.cuts = append(c.cuts, cut{s, "address changed to " + e.Addr})
		s.cold = true
	}
}

// forget drops the servers that have left for good.
func (c *core) forget() {
	for name, s := range c.leaving {
		if s.inflight.Load() == 0 && s.queued.Load() == 0 {
			c.bury(s)
			delete(c.leaving, name)
			c.slots[s.slot] = nil
			c.free = append(c.free, s.slot)
		}
	}
}

// fullConns returns FullConns with its default applied.
func (p *Pool) fullConns(members []*Server) int64 {
	if p.FullConns > 0 {
		return int64(p.FullConns)
	}
	var sum int64
	for _, s := range members {
		sum += int64(s.maxConns)
	}
	return sum
}

// dynamicLimit is HAProxy's rule for minconn and fullconn: the limit follows the load
// of the whole pool (queue.c, srv_dynamic_maxconn).
func (c *core) dynamicLimit(floor, limit int64) int64 {
	full := c.fullConns.Load()
	load := c.active.sum() + c.queue.waiting.Load()
	if load >= full {
		return limit
	}
	return min(limit, max(floor, load*limit/full))
}
