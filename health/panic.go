// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/penstock-lb/penstock/balance"
)

// A probe or a callback of the host's may panic. That ends one probe, or one
// call, and is logged with its stack.

func logPanic(log *slog.Logger, what string, p any) {
	defer func() { _ = recover() }() // a logger is the host's, too
	log.Error("health: "+what+" panicked", "panic", p, "stack", string(debug.Stack()))
}

// caught is deferred around a call of the host's code.
func caught(log *slog.Logger, what string) {
	if p := recover(); p != nil {
		logPanic(log, what, p)
	}
}

// tell calls a callback of the host's.
func tell(log *slog.Logger, what string, f func()) {
	defer caught(log, what)
	f()
}

// askGuarded runs a probe. One that panics says nothing of the server.
func askGuarded(ctx context.Context, log *slog.Logger, probe func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(log, "probe", p)
			err = &Error{Code: CodeInternal, Text: printable(fmt.Sprintf("the probe panicked: %v", p))}
		}
	}()
	return probe(ctx)
}

// keyOf calls a Key of the host's. One that panics shares nothing.
func keyOf(log *slog.Logger, key func(balance.Endpoint) string, e balance.Endpoint) string {
	defer caught(log, "Key")
	return key(e)
}
