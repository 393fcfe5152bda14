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

// giveUp closes a connection that failed before it was known what it wants, and
// notes why in its record. It returns what a handler returns: err, or nil for a
// client that left without a word, as those do that only look whether the port is open.
func giveUp(ctx context.Context, c *Conn, err error) error {
	t := Termination{Cause: Denied, Phase: PhaseRequest}
	switch {
	case ctx.Err() != nil:
		t.Cause, err = Killed, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.Cause = ClientTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		t.Cause = ClientAborted
	}
	RecordOf(c).End(t, err)
	silent := t.Cause == ClientAborted && len(c.Buffered()) == 0
	remote := c.RemoteAddr()
	c.Close()
	if silent {
		return nil
	}
	return fmt.Errorf("from %v: %w", remote, err)
}
