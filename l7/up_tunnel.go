// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// relayTunnel relays an upgraded connection until it ends, and records how it
// ended. Ctx ends with that of x, and when the server is cut.
func relayTunnel(ctx context.Context, x *Exchange, client, server *l4.Conn, name string, idle time.Duration) {
	if idle == 0 {
		idle = -1
	}
	opt := l4.RelayOptions{IdleTimeout: idle, Parker: x.down.parker()} // for splice; not nil if client is a plain socket
	start := time.Now()
	r := l4.Relay(ctx, client, server, opt)
	x.Record.BytesIn += r.AtoB
	x.Record.BytesOut += r.BtoA
	x.Record.Err = r.Err
	if _, ok := errors.AsType[*cutError](r.Err); ok {
		x.Record.Termination = endOf(l4.ServerDown, l4.PhaseData)
		return
	}
	if errors.Is(r.Err, l4.ErrEnd) {
		x.Record.Termination = endOf(l4.Killed, l4.PhaseData)
		return
	}
	switch r.Termination.Cause {
	case l4.Normal:
	case l4.ClientAborted:
		x.Record.Termination = endOf(l4.ClientAborted, l4.PhaseData)
	case l4.ClientTimeout, l4.ServerTimeout:
		x.Record.Termination = endOf(l4.ClientTimeout, l4.PhaseData)
		if idle > 0 && time.Since(start) >= idle { // otherwise only one direction was open
			x.Record.Err = &TimeoutError{name, idle, r.Err}
		}
	case l4.Killed:
		if x.down.lost() {
			x.Record.Termination = endOf(l4.ClientAborted, l4.PhaseData)
			return
		}
		x.Record.Termination = endOf(l4.Killed, l4.PhaseData)
	default:
		x.Record.Termination = endOf(l4.ServerAborted, l4.PhaseData)
	}
}

// endedError is the cause of an end that a handler has brought about by its context.
type endedError struct{ cause error }

func (e *endedError) Error() string { return "l7: ended by a handler: " + e.cause.Error() }

func (e *endedError) Unwrap() []error { return []error{e.cause, l4.ErrEnd} }
