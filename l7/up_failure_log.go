// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// maxFailureLines is how many failures a Proxy logs in a second: enough to
// diagnose a problem without becoming one.
const maxFailureLines = 10

// A failureLog limits the lines of a log. Its methods take the time in seconds.
type failureLog struct {
	mu      sync.Mutex
	second  int64
	lines   int // in that second
	left    int // lines left out since the last one
	started bool
}

// allow reports whether there may be a line now, and how many were left out
// before it.
func (l *failureLog) allow(second int64) (ok bool, left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started || second != l.second {
		l.started, l.second, l.lines = true, second, 0
	}
	if l.lines == maxFailureLines {
		l.left++
		return false, 0
	}
	l.lines++
	left, l.left = l.left, 0
	return true, left
}

// tell logs a failure if there is no OnDone. It is not inlined: its frame would
// be on the stack of every request, which would have to grow for it.
//
//go:noinline
func (p *Proxy) tell(x *Exchange) {
	r := &x.Record
	if !r.warns() || x.down.observed() {
		return
	}
	if _, ok := errors.AsType[*panicError](r.Err); ok {
		return // already logged, with its stack
	}
	ok, left := p.failures.allow(time.Now().Unix())
	if !ok {
		return
	}
	log := p.Logger
	if log == nil {
		log = x.down.logger()
	}
	attrs := []slog.Attr{
		slog.String("server", r.Server), slog.String("phase", r.Termination.Phase.String()), slog.String("cause", r.Termination.Cause.String()),
		slog.Int("status", r.Status), slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.Path),
		slog.String("pool", r.Pool), slog.Int("tries", r.Tries), slog.Any("error", r.Err),
	}
	if left > 0 {
		attrs = append(attrs, slog.Int("left_out", left))
	}
	log.LogAttrs(bg, slog.LevelWarn, "l7: request failed", attrs...)
}
