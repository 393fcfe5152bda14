// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// parking is the Parker of a Server. The first connection that it can watch
// starts it. It cannot watch in-memory connections, and it waits in the kernel,
// which would stop the clock of a synctest bubble.
type parking struct {
	mu     sync.Mutex
	parker *l4.Parker
	tried  bool
	run    sync.WaitGroup
}

// get returns the Parker, and starts it if needed. It is nil if there is none, if it
// has been closed, or if it cannot watch c.
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

// close ends the Parker and waits for the goroutines that it has started.
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

// goIdle marks the beginning of a wait.
func (c *byteConn) goIdle() {
	if c.settled { // already settled: only its deadline ends the wait
		c.state.rest(neverSweep)
		return
	}
	c.state.rest(c.srv.sweeper.tick.Load())
	c.srv.sweeper.arm(c.srv)
}

// goBusy marks the end of the wait. It reports whether another goroutine has
// interrupted it, in which case the read deadline is in the past.
func (c *byteConn) goBusy() (interrupted bool) {
	if !c.state.wake() {
		return false
	}
	c.mu.Lock() // until the deadline is set
	defer c.mu.Unlock()
	c.readAt.forget()
	return true
}

// interruptIdle ends the wait for a request, if the connection is waiting.
func (c *byteConn) interruptIdle() {
	parked := false
	err := quietly(c.srv.logger(), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		parked = c.state.is(stateParked)
		if c.state.interrupt() {
			_ = c.nc.SetReadDeadline(past)
		}
	})
	switch {
	case err != nil:
		c.shut()
	case parked:
		c.dismissParked()
	}
}

// dismissParked closes a parked connection. A client of HTTP/2 is told first, and has a
// moment to close it itself: the GOAWAY says that a request which is on its way just now
// was not processed, so that it is sent again elsewhere (RFC 9113, section 6.8).
func (c *byteConn) dismissParked() {
	h := c.http2()
	if h == nil || h.told() {
		c.closeParked()
		return
	}
	go func() { // it may have to wait for the client to read
		h.goodbye()
		time.AfterFunc(lingerTime, func() {
			if c.state.is(stateParked) {
				c.closeParked()
			}
		})
	}()
}

// closeParked closes a parked connection. The Parker resumes it, and it finds
// that it is closed.
func (c *byteConn) closeParked() {
	if c.c.Parkable() {
		c.shut()
	} else {
		go c.shut() // TLS sends close_notify, which may take a while
	}
}

// settle moves a connection that has been idle for a while off the stack that
// served it: to the Parker, or to a new goroutine if there is none. The
// caller's goroutine must end. An interrupted wait for TLS leaves no complete
// record buffered, so the next one makes the connection below readable.
func (c *byteConn) settle() {
	c.settled = true
	c.giveWork()
	if !c.park() {
		go c.loop()
	}
}

// park leaves the connection to the Parker. If it returns true, another
// goroutine may already be using the connection.
func (c *byteConn) park() bool {
	if p := c.srv.parking.peek(); p != nil {
		c.state.park(time.Since(c.srv.sweeper.start))
		// Stopping is seen here, or Shutdown sees that it is parked.
		c.srv.totals.parked.Add(1)
		if !c.leaves() && p.Park(c.watchable(), c.resume) {
			c.srv.sweeper.arm(c.srv) // the sweeper closes it after IdleTimeout
			return true
		}
		c.srv.totals.parked.Add(-1)
		c.state.resume()
	}
	return false
}

// await has the Parker wait for the first request of a connection, or the second, if
// that has not come yet. Most connections of one request then never meet the runtime's
// poller, nor does one that stays idle after it. It is false if there is something to
// be done now.
func (c *byteConn) await() bool {
	b, err := c.c.TryReadBuffer(&c.srv.pool)
	if b != nil || err != nil {
		c.in.set(b)
		return false // the next read returns the error again
	}
	c.settled = true
	c.giveWork()
	if !c.park() {
		c.settled = false
		return false
	}
	return true
}

// mayAwait reports whether await is for the request that comes next. The third does
// not leave the goroutine at once: a connection that is busy would do so each time.
func (c *byteConn) mayAwait() bool {
	return c.served < 2 && !c.settled && c.watched != nil && c.watched == c.c && c.in.empty()
}

// resume is the goroutine of a connection that the Parker has resumed.
func (c *byteConn) resume() {
	c.srv.totals.parked.Add(-1)
	c.state.resume()
	c.loop()
}
