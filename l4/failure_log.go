// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"log/slog"
	"sync"
	"time"
)

// maxFailureLines is how many connections or flows that were not served are logged in a
// second: enough to diagnose a problem without becoming one.
const maxFailureLines = 10

// A failureLog limits the lines of a log. The zero value is ready to use.
type failureLog struct {
	mu     sync.Mutex
	second int64
	lines  int // in that second
	left   int // lines left out since the last one
}

// add logs a line, unless there were enough of them in this second. The next one says how
// many were left out.
func (l *failureLog) add(log *slog.Logger, now time.Time, msg string, attrs ...any) {
	l.mu.Lock()
	if s := now.Unix(); s != l.second {
		l.second, l.lines = s, 0
	}
	if l.lines++; l.lines > maxFailureLines {
		l.left++
		l.mu.Unlock()
		return
	}
	left := l.left
	l.left = 0
	l.mu.Unlock()
	if left > 0 {
		attrs = append(attrs, "left_out", left)
	}
	logger(log).Info(msg, attrs...)
}
