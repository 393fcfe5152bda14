// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// parking is the Parker of a Server. It is started by the first connection
// that it can watch: in-memory connections it cannot, and it waits in the
// kernel, which would hold up the time of a synctest bubble.
type parking struct {
	mu     sync.Mutex
	parker *l4.Parker
	tried  bool
	run    sync.WaitGroup
}

// get returns nil where there is no Parker, or no more, or none for c.
func (p *parking) get(c *l4.Conn) *l4.Parker {
	if !c.Parkable() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tried {
		p.tried = true
		if parker, err := l4.NewParker(); err == nil {
			p.parker = parker
			p.run.Go(func() { _ = parker.Run() })
		}
	}
	return p.parker
}

// peek is get without starting one.
func (p *parking) peek() *l4.Parker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parker
}

// close ends the Parker and waits for what it has started.
func (p *parking) close() {
	p.mu.Lock()
	parker := p.parker
	p.parker, p.tried = nil, true
	p.mu.Unlock()
	if parker != nil {
		_ = parker.Close()
		p.run.Wait()
	}
}

// watch has the Parker tell when the client closes its side.
func (c *byteConn) watch() {
	if c.srv.HalfClose {
		return
	}
	nc, watched := c.nc, c.c
	if t, ok := nc.(*tls.Conn); ok {
		// The end of the stream below shows just the same; nothing is read.
		if h := handedOf(t); h != nil {
			nc = h.Conn
		}
		watched = l4.NewConn(nc)
	}
	if p := c.srv.parking.get(watched); p != nil {
		c.watched = watched
		c.srv.late.add(c)
	}
}

// ground returns the connection that the Parker looks after, if any does: c.c or
// the one below its TLS.
func (c *byteConn) ground() *l4.Conn {
	if c.watched != nil {
		return c.watched
	}
	return c.c
}

// watchNow is called when watchAfter has passed.
func (c *byteConn) watchNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.srv.parking.peek(); p != nil && !c.unwatched {
		p.Watch(c.watched, c.clientGone) // false: it is closed already
	}
}

func (c *byteConn) unwatch() {
	if c.watched == nil {
		return
	}
	c.mu.Lock()
	c.unwatched = true
	c.mu.Unlock()
	if p := c.srv.parking.peek(); p != nil {
		p.Unwatch(c.watched)
	}
	c.watched = nil
}

// watchAfter is how old a connection is when the Parker begins to watch it:
// most of those for one request do not get there.
const watchAfter = 50 * time.Millisecond

// latecomers are new connections that are to be watched, if they last.
type latecomers struct {
	mu    sync.Mutex
	conns []*byteConn
}

func (l *latecomers) add(c *byteConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) == 0 {
		time.AfterFunc(watchAfter, l.watch)
	}
	l.conns = append(l.conns, c)
}

func (l *latecomers) watch() {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for _, c := range conns {
		c.watchNow()
	}
}

// What a connection is doing, as far as others may interrupt it.
const (
	stateBusy        int32 = iota // serving an exchange
	stateIdle                     // waiting for a request
	stateInterrupted              // its wait was ended by somebody
	stateParked                   // held by the Parker, no goroutine
)

// goIdle says that the connection waits from now on.
func (c *byteConn) goIdle() {
	if c.settled { // as far as it can be: only its deadline ends the wait
		c.idleTick.Store(neverSweep)
		c.state.Store(stateIdle)
		return
	}
	c.idleTick.Store(c.srv.sweeper.tick.Load())
	c.state.Store(stateIdle)
	c.srv.sweeper.arm(c.srv)
}

// goBusy says that the wait is over. It reports whether it was ended by
// somebody else, in which case the read deadline is in the past.
func (c *byteConn) goBusy() (interrupted bool) {
	if c.state.CompareAndSwap(stateIdle, stateBusy) {
		return false
	}
	c.mu.Lock() // until the deadline is set
	defer c.mu.Unlock()
	c.state.Store(stateBusy)
	c.readAt.at = past
	return true
}

// interruptIdle ends the wait for a request, if that is what is going on.
func (c *byteConn) interruptIdle() {
	c.mu.Lock()
	idle := c.state.CompareAndSwap(stateIdle, stateInterrupted)
	if idle {
		_ = c.nc.SetReadDeadline(past)
	}
	parked := c.state.Load() == stateParked
	c.mu.Unlock()
	if parked {
		c.closeParked()
	}
}

// closeParked closes a connection that the Parker holds, which has it resumed,
// to find that out.
func (c *byteConn) closeParked() {
	if c.c.Parkable() {
		_ = c.c.Close()
	} else {
		go c.c.Close() // TLS says goodbye, which may take a while
	}
}

// settle moves a connection that has been idle for a while off the stack that
// served it: to the Parker, or where there is none to a new goroutine. The
// caller's goroutine must end. A wait for TLS that was interrupted has left no
// whole record behind, so that the next one shows on the connection below.
func (c *byteConn) settle() {
	c.settled = true
	c.strip()
	c.now = time.Now()
	if !c.park() {
		go c.loop()
	}
}

// park leaves the connection to the Parker. If that is so, it may be in use
// again already.
func (c *byteConn) park() bool {
	if p := c.srv.parking.peek(); p != nil {
		c.parkedAt.Store(int64(c.now.Sub(c.srv.sweeper.start)))
		c.state.Store(stateParked)
		// Stopping is seen here, or parked seen by Shutdown.
		if !c.srv.stopping.Load() && p.Park(c.ground(), c.resume) {
			c.srv.sweeper.arm(c.srv) // which ends it in time
			return true
		}
	}
	c.state.Store(stateBusy)
	return false
}

// awaitFirst has the Parker wait for the first request of a connection, if that
// has not come with it: most connections of one request then never meet the
// runtime's poller. It is false if there is something to be done now.
func (c *byteConn) awaitFirst() bool {
	b, err := c.c.TryReadBuffer(&c.srv.pool)
	if b != nil || err != nil {
		c.in = b
		return false // an error comes again
	}
	c.settled = true
	if !c.park() {
		c.settled = false
		return false
	}
	return true
}

// resume is the goroutine of a connection that the Parker has let go.
func (c *byteConn) resume() {
	c.state.Store(stateBusy)
	c.loop()
}

// A sweeper looks after idle connections, once in a while and only if there
// are any: it has them settled, and ends those that have been parked for too
// long.
type sweeper struct {
	start time.Time
	tick  atomic.Int64
	armed atomic.Bool
}

// sweepEvery is how often connections are looked at; one that has been idle
// for a whole period is settled.
const sweepEvery = 100 * time.Millisecond

// neverSweep is the idleTick of a connection that the sweeper leaves alone.
const neverSweep = -1

// sweepCost is what a look at one connection may take at most, times a
// hundred: with many the looks are farther apart, so that they never take more
// than a hundredth of a processor.
const sweepCost = 10 * time.Microsecond

func (w *sweeper) arm(s *Server) { w.armFor(s, sweepEvery) }

func (w *sweeper) armFor(s *Server, pause time.Duration) {
	if !w.armed.Load() && !w.armed.Swap(true) {
		time.AfterFunc(pause, func() { w.sweep(s) })
	}
}

func (w *sweeper) sweep(s *Server) {
	w.armed.Store(false) // one that is not seen yet as what it is arms it again
	now, tick := time.Now(), w.tick.Add(1)
	limit := orDefault(s.IdleTimeout, defaultIdleTimeout)
	var settle, expired []*byteConn
	again := false
	s.mu.Lock()
	for c := range s.conns {
		switch c.state.Load() {
		case stateIdle:
			switch since := c.idleTick.Load(); {
			case since == neverSweep:
			case tick-since > 1:
				settle = append(settle, c)
			default:
				again = true
			}
		case stateParked:
			again = true
			if limit > 0 && now.Sub(w.start)-time.Duration(c.parkedAt.Load()) > limit {
				expired = append(expired, c)
			}
		}
	}
	pause := max(sweepEvery, time.Duration(len(s.conns))*sweepCost)
	s.mu.Unlock()
	if again && !s.stopping.Load() {
		w.armFor(s, pause)
	}
	for _, c := range settle {
		c.interruptIdle()
	}
	for _, c := range expired {
		c.interruptIdle()
	}
}
