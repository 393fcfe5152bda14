// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"os"
	"time"
)

// A TimeoutError says which timeout has ended a connection, or an attempt to connect. It
// matches [os.ErrDeadlineExceeded].
type TimeoutError struct {
	Field string        // "IdleTimeout", "ConnectTimeout", ...: of the Proxy, the Dialer or the RelayOptions
	Limit time.Duration // the value of the field, or its default
	Err   error         // the error of the operation that was ended; may be nil
}

func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("l4: %s of %v exceeded", e.Field, e.Limit)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *TimeoutError) Unwrap() error { return e.Err }

// Is reports whether target is [os.ErrDeadlineExceeded].
func (e *TimeoutError) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// Timeout returns true, as in [net.Error].
func (e *TimeoutError) Timeout() bool { return true }

// connectLate names ConnectTimeout in err, if ctx, which that bounds by d, has ended by
// it, and outer, from which ctx is derived, has not ended.
func connectLate(outer, ctx context.Context, d time.Duration, err error) error {
	if err == nil || d <= 0 || outer.Err() != nil || ctx.Err() != context.DeadlineExceeded {
		return err
	}
	return &TimeoutError{"ConnectTimeout", d, err}
}
