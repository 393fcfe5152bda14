// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// A TimeoutError names the field of the time limit that has ended an exchange. It
// is, or is wrapped in, Record.Err or the error of a Transport. It matches
// [os.ErrDeadlineExceeded].
type TimeoutError struct {
	Field string        // "Proxy.HeaderTimeout", "Server.SendTimeout", ...; "grpc-timeout" is that of the client's call
	Limit time.Duration // the value of the field, or its default
	Err   error         // the error of the operation that was ended; may be nil
}

// callTimeout is the Field for the client's deadline of a gRPC call.
const callTimeout = "grpc-timeout"

func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("l7: %s of %v exceeded", e.Field, e.Limit)
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

// timedOut wraps err, if it is a timeout, with the name of the limit. The bounds
// of a server name theirs themselves.
func timedOut(field string, limit time.Duration, err error) error {
	if _, named := errors.AsType[*TimeoutError](err); named || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return &TimeoutError{field, limit, err}
}
