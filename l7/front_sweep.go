// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A sweeper checks idle connections periodically, if there are any: it settles
// them, and closes those that have been parked for too long.
type sweeper struct {
	start time.Time
	tick  atomic.Int64
	armed atomic.Bool
}

// sweepEvery is the period of the sweeper; a connection that has been idle for
// a whole period is settled.
const sweepEvery = 100 * time.Millisecond

// neverSweep is the idleTick of a connection that the sweeper leaves alone.
const neverSweep = -1

// sweepCost is an upper bound of the time to check one connection, times a
// hundred: with many connections the period is longer, so that the sweeper
// never takes more than a hundredth of a processor.
const sweepCost = 10 * time.Microsecond

func (w *sweeper) arm(s *Server) { w.armFor(s, sweepEvery) }

func (w *sweeper) armFor(s *Server, pause time.Duration) {
	if !w.armed.Load() && !w.armed.Swap(true) {
		time.AfterFunc(pause, func() { w.sweep(s) })
	}
}

func (w *sweeper) sweep(s *Server) {
	w.armed.Store(false) // a connection whose new state is not visible yet arms it again
	now, tick := time.Now(), w.tick.Add(1)
	limit := orDefault(s.IdleTimeout, defaultIdleTimeout)
	var settle []*byteConn
	var expired []*byteConn
	again := false
	s.mu.Lock()
	for c := range s.conns.all() {
		switch c.state.state.Load() {
		case stateIdle:
			switch ticks, mine := c.state.idleFor(tick); {
			case !mine:
			case ticks > 1:
				settle = append(settle, c)
			default:
				again = true
			}
		case stateParked:
			again = true
			if idle := c.state.parkedFor(now.Sub(w.start)); limit > 0 && idle > limit {
				expired = append(expired, c)
			}
		}
	}
	pause := max(sweepEvery, time.Duration(s.conns.n)*sweepCost)
	s.mu.Unlock()
	if again && !s.stopping.Load() {
		w.armFor(s, pause)
	}
	var batch l4.Batch // each gets a goroutine
	defer batch.Close()
	for _, c := range settle {
		c.interruptIdle()
		batch.Add(c.raw)
	}
	for _, c := range expired {
		c.expire()
		batch.Add(c.raw)
	}
}

// expire ends a connection that has been parked for too long.
func (c *byteConn) expire() {
	if h := c.http2(); h == nil || !h.told() { // otherwise it is about to end
		c.interruptIdle()
	}
}
