// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// The host's code may panic: a handler, a matcher, a DialFunc, a hook, a callback of its
// tls.Config, its own net.Conn. That ends one connection. Code that runs in a goroutine
// of ours recovers. Code that runs in a goroutine of the host's, as Dialer does, releases
// what it holds and returns the panic as an error.

// A panicError is a panic of the host's code as the error that it ended
// something with.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("l4: panic: %v", e.value) }

// Unwrap returns what was panicked with, if that is an error.
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// Timeout and Temporary make a server keep accepting, since the next connection
// may succeed.
func (e *panicError) Timeout() bool   { return false }
func (e *panicError) Temporary() bool { return true }

// panicked reports whether err is a panic of the host's code.
func panicked(err error) bool {
	_, ok := errors.AsType[*panicError](err)
	return ok
}

// recovered logs v, what recover has returned, with the stack of the panic, and
// returns it as an error; nil if there was none.
func recovered(v any, l *slog.Logger, what string, attrs ...any) (err error) {
	if v == nil {
		return nil
	}
	defer func() { _ = recover() }() // the handler of a logger is the host's, too
	err = &panicError{v}
	logger(l).Error("l4: "+what+" panicked", append(attrs, "panic", v, "stack", string(debug.Stack()))...)
	return err
}

// guard calls f. If f panics, it logs the panic and returns it as an error.
func guard(l *slog.Logger, what string, f func()) (err error) {
	defer func() { err = recovered(recover(), l, what) }()
	f()
	return nil
}

// logger returns l, or the default if l is nil.
func logger(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.Default()
}
