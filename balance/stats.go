// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Outcomes counts finished leases by [Class].
type Outcomes [classes]uint64

// Total returns the sum of all classes.
func (o Outcomes) Total() uint64 {
	var sum uint64
	for _, n := range o {
		sum += n
	}
	return sum
}

// Failed returns the sum of the classes that speak against the server.
func (o Outcomes) Failed() uint64 {
	var sum uint64
	for c, n := range o {
		if Class(c).ServerFault() {
			sum += n
		}
	}
	return sum
}

// StateTimes say how long a server has been in each [State], up to now.
type StateTimes [states]time.Duration

// ServerStats are figures of one server since it joined, or since ClearStats. They are read one by
// one during normal operation, so sums may be slightly off. They take about 1.1 KB per server.
type ServerStats struct {
	InFlight int    // leases
	Queued   int    // waiting for this server and no other
	Picks    uint64 // leases ever; after ClearStats, those in flight then count too
	Outcomes Outcomes
	Latency  Histogram
	InState  StateTimes // since it joined; ClearStats does not touch it
}

// Stats returns the figures of s. It costs s's users nothing.
func (s *Server) Stats() ServerStats {
	st := s.figures()
	c := s.core
	c.mu.Lock()
	st.InState = s.spent
	if !s.since.IsZero() {
		st.InState[s.published] += max(0, time.Since(s.since))
	}
	c.mu.Unlock()
	return st
}

// figures are all Stats but InState.
func (s *Server) figures() ServerStats {
	st := ServerStats{InFlight: s.InFlight(), Queued: s.Queued()}
	for i := range s.outcomes {
		st.Outcomes[i] = s.outcomes[i].Load()
	}
	st.Picks = st.Outcomes.Total() + uint64(max(st.InFlight, 0))
	if h := s.hist.Load(); h != nil {
		st.Latency = h.read()
	}
	return st
}

// ClearStats resets the outcomes and latencies of s. It does not affect current work
// or picks. (HAProxy, "clear counters all".)
func (s *Server) ClearStats() {
	for i := range s.outcomes {
		s.outcomes[i].Store(0)
	}
	s.hist.Store(nil)
}

// Stats are figures of a pool: the sum of its servers, including those that have left.
type Stats struct {
	Servers  int // members
	Usable   int // of them
	InFlight int
	Queued   int // waiting for any server or for a certain one
	Retries  int // going on, see [Pool.TryRetry]
	Picks    uint64
	Outcomes Outcomes
	Latency  Histogram

	// Of the whole pool, also if it is a subset.
	Panicking     bool      // some tier uses all its servers, see [Pool.Panic]
	Retried       uint64    // times that another server was asked for, see [Request.Avoid]: retries and hedges
	Hedged        uint64    // hedges that the budget allowed, see [Pool.TryHedge]
	OverBudget    uint64    // retries and hedges that it refused
	NoServer      uint64    // requests that found no server
	Waits         Histogram // of requests in a queue, however the wait ended
	QueueFull     uint64    // requests that found no place in it
	QueueTimeouts uint64    // those that waited for Queue.Timeout
}

// counters are what a pool counts where a request is held up or goes wrong anyway.
type counters struct {
	retried, hedged, overBudget, noServer, queueFull, queueTimeouts atomic.Uint64

	waits atomic.Pointer[histogram] // nil until something has waited
}

// waited notes a wait in a queue.
func (c *counters) waited(d time.Duration) { histogramOf(&c.waits).add(max(d, 1)) }

// refused notes why Acquire has failed.
func (c *counters) refused(err error) {
	switch err {
	case ErrNoServer:
		c.noServer.Add(1)
	case ErrQueueFull:
		c.queueFull.Add(1)
	case ErrQueueTimeout:
		c.queueTimeouts.Add(1)
	}
}

// read puts the figures of c into st.
func (c *counters) read(st *Stats) {
	st.Retried, st.Hedged, st.OverBudget = c.retried.Load(), c.hedged.Load(), c.overBudget.Load()
	st.NoServer, st.QueueFull, st.QueueTimeouts = c.noServer.Load(), c.queueFull.Load(), c.queueTimeouts.Load()
	if h := c.waits.Load(); h != nil {
		st.Waits = h.read()
	}
}

func (c *counters) clear() {
	for _, n := range []*atomic.Uint64{&c.retried, &c.hedged, &c.overBudget, &c.noServer, &c.queueFull, &c.queueTimeouts} {
		n.Store(0)
	}
	c.waits.Store(nil)
}

// Stats returns the figures of p. For a subset they are those of its present members;
// Queued, Retries and what follows Latency are of the whole pool.
func (p *Pool) Stats() Stats {
	p.init()
	c := p.core
	members := p.view.set.Load().members
	st := Stats{Servers: len(members), Usable: p.Usable(), Queued: int(c.queue.waiting.Load()), Retries: int(c.retries.going.Load())}
	c.counters.read(&st)
	c.mu.Lock()
	for _, v := range c.views {
		st.Panicking = st.Panicking || v.panicky
	}
	if p.match == nil {
		members = slices.AppendSeq(slices.Clip(members), maps.Values(c.leaving))
		st.add(&c.gone)
	}
	c.mu.Unlock()
	for _, s := range members {
		one := s.figures()
		st.add(&one)
	}
	return st
}

// ClearStats does what [Server.ClearStats] does, for all servers whose figures
// [Pool.Stats] sums up.
func (p *Pool) ClearStats() {
	p.init()
	c := p.core
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range p.view.set.Load().members {
		s.ClearStats()
	}
	if p.match != nil {
		return
	}
	for _, s := range c.leaving {
		s.ClearStats()
	}
	c.gone = ServerStats{}
	c.counters.clear()
}

func (st *Stats) add(o *ServerStats) {
	st.InFlight += o.InFlight
	st.Picks += o.Picks
	for c, n := range o.Outcomes {
		st.Outcomes[c] += n
	}
	st.Latency.Add(&o.Latency)
}

// bury keeps the figures of a server that is forgotten. c.mu is held.
func (c *core) bury(s *Server) {
	var sum Stats
	last := s.figures()
	last.Picks = last.Outcomes.Total() // what is in flight now is a request that finds the door shut
	sum.add(&c.gone)
	sum.add(&last)
	c.gone = ServerStats{Picks: sum.Picks, Outcomes: sum.Outcomes, Latency: sum.Latency}
}

// count notes an outcome.
func (s *Server) count(o *Outcome) {
	if int(o.Class) < classes {
		s.outcomes[o.Class].Add(1)
	}
	if o.Class.doubted() {
		s.core.doubts.raise()
	}
	if o.Latency > 0 {
		histogramOf(&s.hist).add(o.Latency)
	}
}
