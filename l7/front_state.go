// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"time"
)

// A connection of the byte front has two states.
//
// Its activity is visible to all goroutines. The connection's goroutine marks the
// beginning (rest) and the end (wake) of a wait for a request, and leaves the
// connection to the Parker (park) until that resumes it (resume). Other goroutines
// may end a wait (interrupt): the sweeper, to settle a connection, and Shutdown.
// They do so under mu of the connection, so that the woken goroutine can wait
// until the deadline in the past is set; set later, it would end the next
// exchange.
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
// Its ending, which says what happens after the current exchange, is used by
// its goroutine only. It only becomes worse.

// Activities.
const (
	stateBusy        int32 = iota // serving an exchange, or between two steps
	stateIdle                     // waiting for a request
	stateInterrupted              // another goroutine has ended its wait
	stateParked                   // held by the Parker, no goroutine
)

// A move changes what a connection is doing.
type move uint8

const (
	moveRest      move = iota // its goroutine begins to wait
	moveWake                  // its goroutine has ended the wait
	moveInterrupt             // another goroutine ends the wait
	movePark                  // its goroutine leaves the connection to the Parker
	moveResume                // the Parker resumes it, or has not accepted it
)

// next returns the state after a move; ok is false if the move does not apply.
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

// activity is the activity of a connection, with two times that its goroutine
// writes before it enters the state to which they belong.
type activity struct {
	state    atomic.Int32
	late     int32        // place among the latecomers, from 1; guarded by their mu, and here where it takes no more memory
	idleTick atomic.Int64 // the sweeper's tick when the wait began; neverSweep if the sweeper must ignore it
	parkedAt atomic.Int64 // in nanoseconds since the sweeper's start
}

func (a *activity) is(state int32) bool { return a.state.Load() == state }

// do makes a move and returns the state before it; ok is false if the move does
// not apply.
func (a *activity) do(m move) (from int32, ok bool) {
	for {
		from = a.state.Load()
		if ok, done := a.doFrom(from, m); done {
			return from, ok
		}
	}
}

// doFrom makes a move if the state is still from; otherwise done is false.
func (a *activity) doFrom(from int32, m move) (ok, done bool) {
	to, ok := m.next(from)
	return ok, !ok || a.state.CompareAndSwap(from, to)
}

// rest begins a wait that the sweeper counts from tick on.
func (a *activity) rest(tick int64) {
	a.idleTick.Store(tick)
	a.do(moveRest)
}

// wake ends the wait, and reports whether another goroutine had interrupted it.
func (a *activity) wake() (interrupted bool) {
	from, _ := a.do(moveWake)
	return from != stateIdle
}

// interrupt ends a wait of the connection's goroutine. It is false if the goroutine
// is not waiting.
func (a *activity) interrupt() bool {
	_, ok := a.do(moveInterrupt)
	return ok
}

// park marks the connection as parked since a time on the sweeper's clock.
func (a *activity) park(at time.Duration) {
	a.parkedAt.Store(int64(at))
	a.do(movePark)
}

func (a *activity) resume() { a.do(moveResume) }

// idleFor returns how many ticks an idle connection has waited; ok is false for one
// that the sweeper must ignore.
func (a *activity) idleFor(tick int64) (ticks int64, ok bool) {
	since := a.idleTick.Load()
	return tick - since, since != neverSweep
}

// parkedFor returns how long the connection has been parked.
func (a *activity) parkedFor(now time.Duration) time.Duration {
	return now - time.Duration(a.parkedAt.Load())
}

// An ending is what happens to a connection after the current exchange.
type ending uint8

const (
	endsNot    ending = iota // another request may follow
	endsClosed               // it is closed
	endsLate                 // it is closed after the client, which may still be sending, has had time to read the reply
	endsBroken               // it is closed, and nothing more can be written
	endsHanded               // the standard front or a tunnel owns it
)

// atLeast sets the ending to e, unless it is worse already.
func (n *ending) atLeast(e ending) { *n = max(*n, e) }

// closes reports whether no other request follows on the connection.
func (n ending) closes() bool { return n != endsNot }
