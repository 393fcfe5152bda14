// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"time"
)

// RelayOptions has the timeouts of a relay, and the buffers and the Parker that it uses.
// Data in either direction restarts the timeouts of both, except for the two that concern
// one side. A timeout resets both connections, so that neither side takes what it has got
// for the whole.
//
// ServerTimeout ends a relay with the Cause of that name, ClientTimeout likewise, Lifetime
// with Local. IdleTimeout ends it with ServerTimeout if the client has sent last, or has
// ended its stream, and else with ClientTimeout, also if neither has ever sent. HalfClosedTimeout
// blames the side that has not ended its stream.
type RelayOptions struct {
	IdleTimeout   time.Duration // neither side sends; 0 means 1h, negative means none
	ClientTimeout time.Duration // a does not send; 0 or negative means none but IdleTimeout
	ServerTimeout time.Duration // b does not send; 0 or negative means none but IdleTimeout
	Lifetime      time.Duration // in all; 0 or negative means no limit

	// HalfClosedTimeout is how long neither side may send once one of them has ended its
	// stream; it replaces those above but for Lifetime. 0 means 30s if b has ended it, and
	// IdleTimeout and ServerTimeout if a has, which waits for b's answer; negative means none.
	HalfClosedTimeout time.Duration

	Buffers *BufferPool // to borrow from while there is something to move; nil means a pool of its own
	Parker  *Parker     // moves data between plain sockets, by splice if it is much; nil means the one that a is parked with, or that of the Server that accepted a; if there is none, goroutines move it
}

const (
	defaultIdleTimeout       = time.Hour
	defaultHalfClosedTimeout = 30 * time.Second

	// linger is how long the goroutine that a relay began with may stay idle
	// before a new one takes over, once: the first has made deep calls, which
	// made its stack grow, and would keep it.
	linger = 50 * time.Millisecond
)

// A RelayResult says what a relay did.
type RelayResult struct {
	AtoB, BtoA  int64 // bytes written to b, and to a, by the relay
	Termination Termination
	Err         error // what Termination stands for; nil if Normal, or ErrNoCloseNotify, or the cause that matched ErrEnd
}

// ErrEnd, if the cause of the context of a [Relay] matches it, says that the relay is to
// end, not to break off: closing both sides afterwards ends their streams and resets none.
var ErrEnd = errors.New("l4: the relay was ended")

// complete returns o with buffers.
func (o *RelayOptions) complete() *RelayOptions {
	if o.Buffers != nil {
		return o
	}
	with := *o
	with.Buffers = new(BufferPool)
	return &with
}
