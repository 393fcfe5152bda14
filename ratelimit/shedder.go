// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Shedder does load shedding: while this machine has more to do than it can, it refuses
// a share of the callers, at random, so that the rest is served in time. It asks Load how
// busy the machine is, at each Interval as long as callers come, and multiplies the share
// that it lets through:
//
//	share *= (Target / load) ^ 1/4	by 0.8 at least and by 1.1 at most
//
// The root makes up for a load that follows the share late or steeply: one that follows
// it by a reading may grow with its third power. A Load that fails counts as no load,
// since nothing is to be refused for a measurement that is missing.
//
// In an l7.Gate it refuses requests by 503. To refuse some kinds of work before others,
// give those a Shedder with a lower Target.
//
// The zero Shedder is ready to use. All methods may be called by several goroutines at
// once; the fields must not change after first use.
type Shedder struct {
	// Load returns the load now, from 0 to 1. One goroutine calls it at a time, and its
	// caller waits. Nil means that of a [CPUPressure], or of a [SchedulerDelay] where that
	// fails at first.
	Load func() (float64, error)

	Target   float64       // load to keep to; 0 means 0.7; at most 1
	Least    float64       // share that is let through in any case; 0 means 0.05; at most 1
	Interval time.Duration // between two readings; 0 means 100ms

	once   sync.Once
	clock  clock
	load   func() (float64, error)
	next   atomic.Int64  // when Load is to be asked, on clock
	share  atomic.Uint64 // bits of a float64
	asking sync.Mutex

	taken, refused atomic.Uint64
}

func (s *Shedder) init() {
	s.share.Store(math.Float64bits(1))
	if s.load = s.Load; s.load == nil {
		s.load = new(CPUPressure).Load
		if _, err := s.load(); err != nil {
			s.load = new(SchedulerDelay).Load
		}
	}
}

// TryAcquire reports whether a piece of work may begin.
func (s *Shedder) TryAcquire() bool {
	s.once.Do(s.init)
	if now := s.clock.now(); int64(now) >= s.next.Load() {
		s.look(now)
	}
	if share := s.Share(); share < 1 && rand.Float64() >= share {
		s.refused.Add(1)
		return false
	}
	s.taken.Add(1)
	return true
}

// Acquire is TryAcquire with [ErrRefused] for false: it waits for nothing.
func (s *Shedder) Acquire(context.Context) error {
	if !s.TryAcquire() {
		return ErrRefused
	}
	return nil
}

// Release does nothing: there are no places. It makes s fit where places are asked for.
func (s *Shedder) Release(time.Duration) {}

// Share returns the share of the callers that is let through.
func (s *Shedder) Share() float64 {
	s.once.Do(s.init)
	return math.Float64frombits(s.share.Load())
}

// Stats returns the totals until now.
func (s *Shedder) Stats() Stats { return Stats{Taken: s.taken.Load(), Refused: s.refused.Load()} }

// look asks Load, unless another goroutine does already.
func (s *Shedder) look(now time.Duration) {
	if !s.asking.TryLock() {
		return
	}
	defer s.asking.Unlock()
	if int64(now) < s.next.Load() {
		return // it was asked just now
	}
	s.next.Store(int64(later(now, min(orDefault(s.Interval, 100*time.Millisecond), longest))))
	load, err := s.load()
	if err != nil {
		load = 0
	}
	share := shed(math.Float64frombits(s.share.Load()), load, orDefault(s.Target, 0.7), orDefault(s.Least, 0.05))
	s.share.Store(math.Float64bits(share))
}

// shed returns the share that follows from one reading.
func shed(share, load, target, least float64) float64 {
	factor := 1.1
	if load > 0 { // not NaN
		factor = min(max(math.Sqrt(math.Sqrt(target/load)), 0.8), 1.1)
	}
	return min(max(share*factor, least), 1)
}
