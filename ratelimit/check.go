// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "github.com/penstock-lb/penstock"

// The methods below return what is wrong with a literal, each mistake a
// [*penstock.ConfigError]. The handlers that use a limit (l4.Limit, l7.Limit,
// l7.Gate, l7.CircuitBreaker) call them at the first use. A missing limit is a mistake although
// its zero value is safe: it refuses everything, which would be noticed late.

const (
	notNegative = "must not be negative"
	aShare      = "must be a share, from 0 to 1"
	upToKeys    = "must be at most 268435455: the places of more keys take 2.5 GB"
)

// Check returns what is wrong with r.
func (r Rate) Check() error {
	var m penstock.Mistakes
	m.If(r.Count == 0, "Rate.Count", r.Count, "admits nothing: write how many events there may be, or a negative number if that is what is meant")
	m.If(r.Per < 0, "Rate.Per", r.Per, notNegative)
	return m.Err()
}

// Check returns what is wrong with g.
func (g GCRA) Check() error { return checkRate("GCRA.Rate", g.Rate) }

// Check returns what is wrong with w.
func (w Window) Check() error { return checkRate("Window.Rate", w.Rate) }

// Check returns what is wrong with b.
func (b *Bucket) Check() error { return checkRate("Bucket.Rate", b.Rate) }

func checkRate(field string, r Rate) error {
	var m penstock.Mistakes
	m.In(field, r)
	return m.Err()
}

// Check returns what is wrong with f.
func (f InFlight) Check() error {
	var m penstock.Mistakes
	m.If(f.Max == 0, "InFlight.Max", f.Max, "admits nothing: write how many there may be at once, or a negative number if that is what is meant")
	return m.Err()
}

// Check returns what is wrong with b.
func (b Ban) Check() error {
	var m penstock.Mistakes
	m.If(b.Within < 0, "Ban.Within", b.Within, notNegative)
	m.If(b.For < 0, "Ban.For", b.For, notNegative)
	m.If(b.After == 0 && b != (Ban{}), "Ban.After", b.After, "bans nobody: write how many refusals lead to a ban, or a negative number if that is what is meant")
	m.If(b.After > 32_766, "Ban.After", b.After, "must be at most 32 766")
	return m.Err()
}

// Check returns what is wrong with b.
func (b *Breaker) Check() error {
	var m penstock.Mistakes
	m.If(!(b.Share >= 0 && b.Share <= 1), "Breaker.Share", b.Share, aShare)
	m.If(b.Volume < 0, "Breaker.Volume", b.Volume, notNegative)
	m.If(b.Window < 0, "Breaker.Window", b.Window, notNegative)
	m.If(b.Open < 0, "Breaker.Open", b.Open, notNegative)
	return m.Err()
}

// Check returns what is wrong with s.
func (s *Shedder) Check() error {
	var m penstock.Mistakes
	m.If(!(s.Target >= 0 && s.Target <= 1), "Shedder.Target", s.Target, aShare)
	m.If(!(s.Least >= 0 && s.Least <= 1), "Shedder.Least", s.Least, aShare)
	m.If(s.Interval < 0, "Shedder.Interval", s.Interval, notNegative)
	return m.Err()
}

// Check returns what is wrong with l and its law.
func (l *Limiter) Check() error {
	var m penstock.Mistakes
	m.Need("Limiter.Law", l.Law, "must be a law, such as GCRA: without one everything is refused")
	m.In("Limiter.Law", l.Law)
	return m.Err()
}

// Check returns what is wrong with k, its law and its ban.
func (k *Keyed[K]) Check() error {
	var m penstock.Mistakes
	if k.LawOf == nil {
		m.Need("Keyed.Law", k.Law, "must be a law, such as GCRA: without one, and without LawOf, everything is refused")
	}
	m.In("Keyed.Law", k.Law)
	m.If(k.Max < 0, "Keyed.Max", k.Max, notNegative)
	m.If(k.Max > mostKeys, "Keyed.Max", k.Max, upToKeys)
	m.In("Keyed.Ban", k.Ban)
	return m.Err()
}

// Check returns what is wrong with s, its law, its store and its local limit.
func (s *Shared[K]) Check() error {
	var m penstock.Mistakes
	if s.LawOf == nil {
		m.Need("Shared.Law", s.Law, "must be a law, such as GCRA: without one, and without LawOf, everything is refused")
	}
	m.In("Shared.Law", s.Law)
	if s.Store != nil {
		m.Need("Shared.Store", s.Store, "must be left out, or hold a store: there is a nil pointer in it")
	}
	m.In("Shared.Store", s.Store)
	m.In("Shared.Local", s.Local)
	m.If(s.Failures < 0, "Shared.Failures", s.Failures, notNegative)
	m.If(s.Retry < 0, "Shared.Retry", s.Retry, notNegative)
	return m.Err()
}

// Check returns what is wrong with l and its limit.
func (l *Leased[K]) Check() error {
	var m penstock.Mistakes
	m.Need("Leased.Shared", l.Shared, "must be the limit that leases are taken from")
	if s := l.Shared; s != nil {
		m.In("Leased.Shared", s)
		m.Need("Leased.Shared.Store", s.Store, "must be the store that the gateways share")
		m.Need("Leased.Shared.Gateways", s.Gateways, "must say how many gateways there are, between which Ahead is divided")
	}
	m.If(!(l.Ahead >= 0 && l.Ahead <= 1), "Leased.Ahead", l.Ahead, "must be from 0 to 1, a share of the limit")
	m.If(l.Max < 0, "Leased.Max", l.Max, notNegative)
	m.If(l.Concurrency < 0, "Leased.Concurrency", l.Concurrency, notNegative)
	return m.Err()
}

// Check returns what is wrong with s.
func (s *MemoryStore) Check() error {
	var m penstock.Mistakes
	m.If(s.Max < 0, "MemoryStore.Max", s.Max, notNegative)
	m.If(s.Max > mostKeys, "MemoryStore.Max", s.Max, upToKeys)
	return m.Err()
}

// Check returns what is wrong with c.
func (c *Concurrency) Check() error {
	var m penstock.Mistakes
	m.If(c.Max == 0 && !c.isSet(), "Concurrency.Max", c.Max, "has no places: write how many there may be at once, or a negative number to refuse all")
	m.If(c.MaxWait > 0 && c.MaxQueue == 0, "Concurrency.MaxQueue", c.MaxQueue, noQueue)
	return m.Err()
}

const noQueue = "lets nobody wait, so that MaxWait means nothing: write how many may, or a negative number if that is what is meant"

// isSet reports whether the places are there already, from Max or SetMax.
func (c *Concurrency) isSet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// Check returns what is wrong with a.
func (a *Adaptive) Check() error {
	var m penstock.Mistakes
	m.If(a.Min < 0, "Adaptive.Min", a.Min, notNegative)
	m.If(a.Max < 0, "Adaptive.Max", a.Max, notNegative)
	m.If(a.Max > 0 && a.Min > a.Max, "Adaptive.Min", a.Min, "must not be more than Max")
	m.If(a.Initial < 0, "Adaptive.Initial", a.Initial, notNegative)
	m.If(a.MaxWait > 0 && a.MaxQueue == 0, "Adaptive.MaxQueue", a.MaxQueue, noQueue)
	m.If(a.Window < 0, "Adaptive.Window", a.Window, notNegative)
	return m.Err()
}
