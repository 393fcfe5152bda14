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

// boundConnect bounds ctx by d, if that is positive. Defer the func that it returns: it
// names ConnectTimeout in the error if that has ended the attempt, and not ctx itself. It
// goes by the clock, since a deadline of a connection may be noticed before that of a context.
func boundConnect(ctx context.Context, d time.Duration) (context.Context, func(*error)) {
	if d <= 0 {
		return ctx, func(*error) {}
	}
	due := time.Now().Add(d)
	bounded, cancel := context.WithDeadline(ctx, due)
	return bounded, func(err *error) {
		if first, _ := bounded.Deadline(); first.Equal(due) && !time.Now().Before(due) && ctx.Err() == nil && *err != nil && isTimeout(*err) {
			*err = &TimeoutError{"ConnectTimeout", d, *err}
		}
		cancel()
	}
}
