// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"time"
)

// A connection of the byte front states two things about itself.
//
// What it is doing, an activity, is for all to see. Its goroutine says that it
// waits for a request (rest) and that the wait is over (wake), and leaves the
// connection to the Parker (park) until that resumes it (resume). Others may end a
// wait (interrupt): the sweeper, to have a connection settled, and Shutdown. That
// happens under mu of the connection, so that who wakes can wait for the deadline
// in the past to be set, and not have it set on what follows.
//
//	            rest                       park
//	      +-------------> idle       +-------------> parked
//	      |                |  |      |                 |
//	    busy <-------------+  |    busy <--------------+
//	      ^       wake        | interrupt    resume
//	      |                   v
//	      +------------- interrupted
//	             wake
//
// How it goes on behind the exchange under way, an ending, is known to its
// goroutine only. It only becomes worse.

// Activities.
const (
	stateBusy        int32 = iota // serving an exchange, or between two steps
	stateIdle                     // waiting for a request
	stateInterrupted              // its wait was ended by somebody
	stateParked                   // held by the Parker, no goroutine
)

// A move changes what a connection is doing.
type move uint8

const (
	moveRest      move = iota // its goroutine begins to wait
	moveWake                  // and has ended the wait
	moveInterrupt             // somebody else ends it
	movePark                  // its goroutine leaves the connection to the Parker
	moveResume                // which lets it go, or has not taken it
)

// next returns where a move leads from a state; ok is false if it does not apply.
func (m move) next(state int32) (to int32, ok bool) {
	switch {
	case m == moveRest && state == stateBusy:
		return stateIdle, true
	case m == moveWake && (state == stateIdle || state == stateInterrupted):
		return stateBusy, true
	case m == moveInterrupt && state == stateIdle:
		return stateInterrupted, true
	case m == movePark && state == stateBusy:
		return stateParked, true
	case m == moveResume && state == stateParked:
		return stateBusy, true
	}
	return state, false
}

// activity is what a connection is doing. The two times are written by its
// goroutine before the state that they belong to.
type activity struct {
	state    atomic.Int32
	idleTick atomic.Int64 // of the sweeper, when the wait began; neverSweep if that is not its business
	parkedAt atomic.Int64 // in nanoseconds from the sweeper's start
}

func (a *activity) is(state int32) bool { return a.state.Load() == state }

// do makes a move and returns the state before; ok is false if the move does not
// apply to it.
func (a *activity) do(m move) (from int32, ok bool) {
	for {
		from = a.state.Load()
		if ok, done := a.doFrom(from, m); done {
			return from, ok
		}
	}
}

// doFrom makes a move if the state is still the one that was read; else done is false.
func (a *activity) doFrom(from int32, m move) (ok, done bool) {
	to, ok := m.next(from)
	return ok, !ok || a.state.CompareAndSwap(from, to)
}

// rest begins a wait that the sweeper may look at from tick on.
func (a *activity) rest(tick int64) {
	a.idleTick.Store(tick)
	a.do(moveRest)
}

// wake ends it, and reports whether somebody else had before.
func (a *activity) wake() (interrupted bool) {
	from, _ := a.do(moveWake)
	return from != stateIdle
}

// interrupt ends a wait of the connection's goroutine. It is false if there is none.
func (a *activity) interrupt() bool {
	_, ok := a.do(moveInterrupt)
	return ok
}

// park leaves the connection to the Parker, since a time on the sweeper's clock.
func (a *activity) park(at time.Duration) {
	a.parkedAt.Store(int64(at))
	a.do(movePark)
}

func (a *activity) resume() { a.do(moveResume) }

// idleFor returns how many ticks an idle connection has waited; ok is false for one
// that is not the sweeper's business.
func (a *activity) idleFor(tick int64) (ticks int64, ok bool) {
	since := a.idleTick.Load()
	return tick - since, since != neverSweep
}

// parkedFor returns how long the connection has been parked.
func (a *activity) parkedFor(now time.Duration) time.Duration {
	return now - time.Duration(a.parkedAt.Load())
}

// An ending is what becomes of a connection behind the exchange under way.
type ending uint8

const (
	endsNot    ending = iota // another request may follow
	endsClosed               // it is closed
	endsLate                 // it is closed once the client, which may be sending still, has had time to read the reply
	endsBroken               // it is closed, and nothing more can be written
	endsHanded               // it is the standard front's, or a tunnel's
)

// atLeast makes the ending e, unless it is worse already.
func (n *ending) atLeast(e ending) { *n = max(*n, e) }

// closes reports whether nothing follows on the connection.
func (n ending) closes() bool { return n != endsNot }
