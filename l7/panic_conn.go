// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"runtime/debug"
)

// A connection may be the host's, and panic like any other code of it. In the goroutine
// of its reader a recover stands above everything; a timer, a callback and the end of a
// connection call it by the helpers here.

// quietly calls f, which calls a connection, and returns its panic. No lock is held,
// or f itself gives it back as it unwinds.
func quietly(log *slog.Logger, f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(log, p, "connection")
		}
	}()
	f()
	return nil
}

// quietlyLocked is quietly for a caller that holds a lock, which the host's logger may
// need: it is told in a goroutine of its own.
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
