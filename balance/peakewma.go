// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// PeakEWMA draws two servers at random, by weight, and picks the one that is expected
// to answer first:
//
//	load = cost * (leases + 1)
//
// relative to its weight. With little to do servers of equal cost have their share by
// weight.
//
// The cost is a moving average of [Outcome.Latency] that rises at once and falls with
// time constant Tau. A failure counts as a latency of at least Penalty, so that failing
// fast does not look cheap. A server without a measurement gets one lease at a time
// while others have one. If no outcome has a latency, the leases are compared as in
// [TwoChoices].
//
// A pick reads no clock: time advances with [Outcome.At], and Done reads the clock
// only if At is zero.
//
// (Finagle's PeakEwma; tower's peak_ewma.)
type PeakEWMA struct {
	Tau     time.Duration // 0 means 10s
	Penalty time.Duration // 0 means 1s, negative means none
}

// Picker implements [Policy].
func (e PeakEWMA) Picker(v View) Picker {
	if e.Tau <= 0 {
		e.Tau = 10 * time.Second
	}
	if e.Penalty == 0 {
		e.Penalty = time.Second
	}
	p := &peakEWMA{conf: e, view: v, draw: newLottery(v.Weights), scales: newScales(&v)}
	for _, s := range v.Servers { // time goes on where it was
		if c := unpackCost(s.peak.Load()); c.seconds > 0 {
			p.advance(c.at)
		}
	}
	return p
}

type peakEWMA struct {
	conf   PeakEWMA
	view   View
	draw   lottery
	scales scales
	_      [cacheLine]byte
	now    atomic.Uint32 // latest time seen
	_      [cacheLine]byte
}

func (p *peakEWMA) Pick(_ uint64, f Filter) *Server {
	v := &p.view
	best, found := -1, 0
	var least expected
	now := p.now.Load()
	for range 6 {
		x := v.Rand.Uint64()
		i := p.draw.draw(x)
		if best >= 0 && len(v.Servers) == 2 {
			i = 1 - best // the heavier one might be drawn again and again
		}
		if i == best || !f.Allows(v.Servers[i]) {
			continue
		}
		if e := p.expect(i, now); best < 0 || p.prefer(i, best, e, least, fraction(x)) {
			best, least = i, e
		}
		if found++; found == 2 || least.load == 0 {
			break // nothing is less than not measured and idle
		}
	}
	if best >= 0 {
		return v.Servers[best]
	}
	return v.firstFrom(v.Rand.IntN(len(v.Servers)), f)
}

// unmeasured is the load of a server that has work but no answer yet.
const unmeasured = 1e12

// expected is what a server is compared by.
type expected struct {
	cost float64 // 0: not measured
	load float64
}

// expect returns what to expect of server i.
func (p *peakEWMA) expect(i int, now uint32) expected {
	s := p.view.Servers[i]
	pending := float64(s.load())
	c := unpackCost(s.peak.Load())
	if c.seconds == 0 {
		if pending > 0 {
			return expected{load: unmeasured + pending}
		}
		return expected{}
	}
	cost := c.decayed(now, p.conf.Tau)
	return expected{cost, cost * (pending + 1)}
}

// prefer reports whether to leave server a, which was drawn first, for b.
func (p *peakEWMA) prefer(b, a int, eb, ea expected, random float64) bool {
	unit := min(ea.cost, eb.cost) // one lease of the faster one
	switch {
	case p.scales == nil || unit == 0 && ea.cost != eb.cost:
		return eb.load < ea.load
	case unit == 0: // neither is measured: their leases decide
		return p.scales.prefer(b, a, max(0, eb.load-unmeasured), max(0, ea.load-unmeasured), 1, random)
	}
	return p.scales.prefer(b, a, eb.load-unit, ea.load-unit, unit, random)
}

// Observe notes the latency of a lease that is done.
func (p *peakEWMA) Observe(s *Server, o Outcome) {
	latency := o.Latency
	if o.Class.ServerFault() {
		latency = max(latency, p.conf.Penalty)
	} else if o.Class != OK {
		return // says nothing about the server
	}
	if latency <= 0 {
		return
	}
	if o.At.IsZero() {
		o.At = time.Now()
	}
	now := uint32(max(o.At.Sub(s.core.born), 0) / time.Millisecond)
	p.advance(now)
	for {
		was := s.peak.Load()
		if s.peak.CompareAndSwap(was, unpackCost(was).observe(latency, now, p.conf.Tau).pack()) {
			return
		}
	}
}

// advance moves the time on to now, unless it is later already.
func (p *peakEWMA) advance(now uint32) {
	for {
		was := p.now.Load()
		if int32(now-was) <= 0 || p.now.CompareAndSwap(was, now) {
			return
		}
	}
}

// A cost is a moving average of latency.
type cost struct {
	seconds float32 // 0: not measured
	at      uint32  // milliseconds since the pool was made; it may wrap
}

func (c cost) pack() uint64 { return uint64(math.Float32bits(c.seconds))<<32 | uint64(c.at) }
func unpackCost(bits uint64) cost {
	return cost{math.Float32frombits(uint32(bits >> 32)), uint32(bits)}
}

// decayed returns the cost at time now, in seconds.
func (c cost) decayed(now uint32, tau time.Duration) float64 {
	return float64(c.seconds) * c.keep(now, tau)
}

// keep returns how much of c still counts at time now: exp(-td/tau).
func (c cost) keep(now uint32, tau time.Duration) float64 {
	td := int32(now - c.at)
	if td <= 0 {
		return 1
	}
	return math.Exp(-float64(td) * float64(time.Millisecond) / float64(tau))
}

// observe returns the cost after one more latency at time now.
func (c cost) observe(latency time.Duration, now uint32, tau time.Duration) cost {
	rtt := latency.Seconds()
	if c.seconds > 0 && int32(now-c.at) < 0 {
		now = c.at // outcomes come in any order
	}
	if rtt >= float64(c.seconds) {
		return cost{float32(rtt), now}
	}
	k := c.keep(now, tau)
	return cost{float32(float64(c.seconds)*k + rtt*(1-k)), now}
}
