// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"runtime/debug"
)

// A connection may be the host's code, and may panic. The goroutine of its reader has a
// recover at its top; timers, callbacks and the code that closes a connection call its
// methods by these helpers.

// quietly calls f, which calls methods of a connection, and returns its panic as an
// error. No lock is held, or f releases it as it unwinds.
func quietly(log *slog.Logger, f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(log, p, "connection")
		}
	}()
	f()
	return nil
}

// quietlyLocked is quietly for a caller that holds a lock. The host's logger may need
// the lock too, so it is called in another goroutine.
func quietlyLocked(log *slog.Logger, f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := string(debug.Stack())
			go func() {
				defer func() { _ = recover() }()
				log.Error("l7: connection panicked", "panic", p, "stack", stack)
			}()
			err = &panicError{p}
		}
	}()
	f()
	return nil
}
