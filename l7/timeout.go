// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// A TimeoutError says which time limit has ended something, by the name of its
// field. It is what Record.Err, or the error of a Transport, is or wraps then; it
// matches [os.ErrDeadlineExceeded].
type TimeoutError struct {
	Field string        // "Proxy.HeaderTimeout", "Server.SendTimeout", ...
	Limit time.Duration // what it is set to, or its default
	Err   error         // what the limit ended; nil if there is nothing to say
}

func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("l7: %s of %v is over", e.Field, e.Limit)
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

// timedOut names the limit that err, if it is one of time, stands for; a bound of
// a server says which of its limits it was.
func timedOut(field string, limit time.Duration, err error) error {
	if _, named := errors.AsType[*TimeoutError](err); named || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return &TimeoutError{field, limit, err}
}
