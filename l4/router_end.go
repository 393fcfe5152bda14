// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// giveUp closes a connection that failed before it had a route, and notes why in its
// record. It returns what a handler returns: err, or nil for a client that disconnected
// without a byte, as clients do that only check whether the port is open.
func giveUp(ctx context.Context, c *Conn, err error, silent bool) error {
	t := Termination{Cause: Denied, Phase: PhaseRequest}
	switch {
	case ctx.Err() != nil:
		t.Cause, err = Killed, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.Cause = ClientTimeout
	case peerLeft(err):
		t.Cause = ClientAborted
	}
	endConn(c, t, err)
	remote := c.RemoteAddr()
	if t.Cause == Killed {
		Abort(c)
	}
	c.Close()
	if silent && t.Cause == ClientAborted {
		return nil
	}
	return fmt.Errorf("from %v: %w", remote, err)
}

// peerLeft reports whether err says that the peer ended the connection in any way.
func peerLeft(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" // an alert, as crypto/tls puts it
}
