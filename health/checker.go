// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A Checker probes the servers of its pools periodically, and reports the results as
// [balance.Check]. That is a reporter of its own: it does not change what an operator, an
// agent or discovery say of a server.
//
// A server that joins a pool is probed at once, and the state of one that leaves is
// dropped. One in [balance.Maint] is not probed; after that it begins as Initial says,
// and is probed within Interval. Servers that no Checker watches stay up: to check only
// some of a pool, give it a [balance.Pool.Subset].
//
// A probe that finds CodeInternal does not count: a lack of descriptors on this machine
// says nothing about the servers, and must not take them all down.
//
// The fields must not change once Run is called.
type Checker struct {
	Pools []*balance.Pool // whose servers are probed; a server that is in two of them is probed once
	Probe Probe           // nil means TCP{}

	Interval time.Duration // from the start of a probe to the start of the next; 0 means 2s
	Fast     time.Duration // the same while a server is between two states; 0 means Interval
	Down     time.Duration // the same while a server is down and every probe fails; 0 means Interval
	Timeout  time.Duration // of one probe; 0 means Interval, negative means none
	Rise     int           // passes in a row that bring a server up; 0 means 2
	Fall     int           // failures in a row that take it down; 0 means 3. One that no probe has found up yet needs a single one, unless Initial is InitialFullyUp
	Initial  Initial       // what a server is before its first probe; 0 means InitialUp

	// Jitter makes each interval longer or shorter by at most this share of
	// itself, at random, so that several balancers do not probe in step.
	// 0 means none, the most is 0.5.
	Jitter float64

	// Spread is the time over which the first probes of the servers present
	// when Run begins are spread evenly; 0 means 20ms for each, at most Interval,
	// negative means none: all at once.
	Spread time.Duration

	// Concurrency is the number of probes, each with a goroutine, that may run at once;
	// further ones wait for their turn, the longest overdue first. 0 means 256. It should
	// exceed the number of probes in progress when no server answers: servers * Timeout /
	// Interval. The most is 1048576.
	Concurrency int

	// Key, if not nil, makes servers with equal keys share one probe and one
	// state, also across pools: two pools over the same machines check them
	// once, and a pool can follow another that serves on the same hosts. The
	// first of them, in the order of Pools, is the one that is probed. An
	// empty key shares nothing.
	Key func(balance.Endpoint) string

	// Observe lets live traffic count as well; see [Checker.Observed].
	Observe Observe

	// CutDown closes all connections to a server, live ones too, when this Checker finds
	// it down. Without it the pool closes the idle ones. CutOnDown of an l4.Proxy does so
	// for connections of that proxy, whatever took the server down: one of the two is
	// enough.
	CutDown bool

	// CutBackups closes the live connections to the servers of higher tiers
	// when a server comes up, or back from a soft stop, and takes work again.
	// (HAProxy, on-marked-up shutdown-backup-sessions.)
	CutBackups bool

	OnResult func(Result) // called after each probe by Run's own goroutine, must not block; may be nil
	Logger   *slog.Logger // for changes of state, with the names of pool and server; nil means slog.Default()
	Seed     uint64       // of the jitter; 0 means at random

	agents  *AgentChecker // not nil: this Checker is its schedule
	running atomic.Bool
	watched atomic.Pointer[watch] // nil while Run does not run
}

// Initial is the state of a server before its first probe. A new server gets
// work between [balance.Pool.Set] and the time the Checker hears of it; if it must
// not, even with InitialDown, set [balance.Pool.Unproven] too.
type Initial uint8

const (
	InitialUp        Initial = iota // up, and one failure takes it down, whatever Fall is, until a probe has passed
	InitialFullyUp                  // up, and it takes Fall failures
	InitialDown                     // down, and one pass brings it up
	InitialFullyDown                // down, and it takes Rise passes
)

// A Result is what one probe, or one row of errors seen in live traffic, found.
type Result struct {
	Servers []*balance.Server // which it was about: one, or those that share a key; must not be changed
	Err     error             // what the probe returned; AsError and CodeOf read it
	Took    time.Duration     // what the probe took
	Passive bool              // seen in live traffic, see Observe
	Status  Status            // where it leaves the servers
}

// A Status is what a Checker knows of one server.
type Status struct {
	Health  balance.Health
	Since   time.Time // when Health became what it is
	Reason  string    // "connect: connection refused, 3 of 3"
	Last    time.Time // when the last probe ended; zero if none has
	Err     error     // what the last probe returned
	Took    time.Duration
	Due     time.Time // when the next probe begins, or should have begun
	Probes  uint64    // done
	Failed  uint64    // of them, those that speak against the server
	Count   int       // failures in a row of a server that is up, passes in a row of one that is down
	Of      int       // Fall or Rise: how many of them it takes
	Pending bool      // not probed yet
}

// Status returns what is known of s. It is false for a server that this
// Checker does not watch, or not while Run runs. Any goroutine may call it.
func (c *Checker) Status(s *balance.Server) (Status, bool) {
	w := c.watched.Load()
	if w == nil || w.targets[s] == nil {
		return Status{}, false
	}
	return w.targets[s].read(), true
}

// Probed returns when the last probe of s ended, how long it took, when the next one is
// due, and what the last one returned: the part of Status that needs no type of this package.
// What is not known is zero.
func (c *Checker) Probed(s *balance.Server) (last time.Time, took time.Duration, next time.Time, err error) {
	st, _ := c.Status(s)
	return st.Last, st.Took, st.Due, st.Err
}

// ProbeNow probes s at once, if no probe of it is in progress, and counts its intervals
// from then on. It returns false for a server that this Checker does not watch. It never
// blocks; any goroutine may call it.
func (c *Checker) ProbeNow(s *balance.Server) bool {
	w := c.watched.Load()
	if w == nil || w.targets[s] == nil {
		return false
	}
	r := w.round
	r.mu.Lock()
	if !slices.Contains(r.asked, w.targets[s]) {
		r.asked = append(r.asked, w.targets[s])
	}
	r.mu.Unlock()
	poke(r.wake)
	return true
}

// hurry makes the targets due that ProbeNow was called for.
func (r *round) hurry(now time.Time) {
	r.mu.Lock()
	asked := r.asked
	r.asked = nil
	r.mu.Unlock()
	for _, t := range asked {
		if !t.gone && !t.busy {
			t.due = now
			r.due.set(t)
		}
	}
}

// Run probes until ctx is done, and returns its cause. It returns at once what
// [Checker.Check] says, and [ErrRunning] if another Run is active. When it returns, no probe is running; the servers keep the
// state that was found last.
func (c *Checker) Run(ctx context.Context) error {
	if err := c.Check(); err != nil {
		return err
	}
	if !c.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer c.running.Store(false)
	defer c.watched.Store(nil)
	return newRound(c, c.config()).run(ctx)
}

// settings are a Checker's fields with the defaults applied.
type settings struct {
	probe                               Probe
	interval, fast, down, timeout       time.Duration
	rise, fall, concurrency, errorLimit int
	log                                 *slog.Logger
}

// config applies the defaults.
func (c *Checker) config() settings {
	interval := or(c.Interval, 2*time.Second)
	s := settings{
		probe:       c.Probe,
		interval:    interval,
		fast:        or(c.Fast, interval),
		down:        or(c.Down, interval),
		timeout:     or(c.Timeout, interval),
		rise:        min(or(c.Rise, 2), maxCount),
		fall:        min(or(c.Fall, 3), maxCount),
		concurrency: or(c.Concurrency, 256),
		errorLimit:  or(c.Observe.Errors, 10),
		log:         c.Logger,
	}
	if s.probe == nil {
		s.probe = TCP{}
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s
}
