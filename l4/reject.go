// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// ErrRejected is matched, with [errors.Is], by the error in the record of a connection
// that a handler refused, by the host's rules or since it does not belong here.
var ErrRejected = errors.New("l4: rejected")

// Reject is a handler that resets connections at once.
type Reject struct{}

// ServeConn resets c. The error is nil, since that is intended.
func (Reject) ServeConn(_ context.Context, c net.Conn) error {
	endConn(c, Termination{Denied, PhaseRequest}, ErrRejected)
	Abort(c)
	c.Close()
	return nil
}

// Tarpit is a handler that stays silent for a while and then resets the
// connection, which slows down clients that keep retrying. What the client
// sends is not read. Its fields must not change once it serves; it may serve
// any number of connections at once.
type Tarpit struct {
	Delay time.Duration // 0 means 10 s, negative means none
	Max   int           // held at once; more are reset at once; 0 means 1024, negative means none

	held atomic.Int64
}

// ServeConn holds c for Delay, less if ctx ends or the server begins to shut
// down, and resets it. The error is nil.
func (t *Tarpit) ServeConn(ctx context.Context, c net.Conn) error {
	if t.held.Add(1) <= int64(cmp.Or(t.Max, 1024)) {
		timer := time.NewTimer(cmp.Or(t.Delay, 10*time.Second))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-Draining(ctx):
		}
		timer.Stop()
	}
	t.held.Add(-1)
	endConn(c, Termination{Denied, PhaseTarpit}, ErrRejected)
	Abort(c)
	c.Close()
	return nil
}
