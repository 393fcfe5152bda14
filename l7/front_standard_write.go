// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"time"
)

// A writeLimit bounds the writes of a reply under an http.Server of the host's
// that has no bound itself: in HTTP/2, a client that opens no window would block
// the stream, and the server's side with it, for ever.
type writeLimit struct {
	limit time.Duration // 0 means none
	at    deadline
	late  bool // a deadline has passed
}

// boundReply bounds the writes of a relayed reply. Connections and streams of a
// Server are bounded already, and a bound set by the host takes precedence.
func (s *standard) boundReply(d time.Duration) {
	if s.srv != nil {
		return
	}
	if h, ok := s.r.Context().Value(http.ServerContextKey).(*http.Server); ok && h.WriteTimeout <= 0 {
		s.writes.limit = d
	}
}

func (s *standard) replyLate() bool { return s.writes.over() }

// renew bounds the next write to w.
func (l *writeLimit) renew(w http.ResponseWriter) {
	if l.limit <= 0 {
		return
	}
	l.late = l.over()
	l.at.bound(time.Now(), l.limit, func(t time.Time) error {
		return http.NewResponseController(w).SetWriteDeadline(t)
	}, nil)
}

// lift ends the bound while there is nothing to write, since in HTTP/2 a deadline
// that passes ends the stream even then. After the last write the bound stays,
// since net/http sends the rest of the reply later.
func (l *writeLimit) lift(w http.ResponseWriter) {
	if !l.at.at.IsZero() && !l.over() {
		l.at.at = time.Time{}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	}
}

// over reports whether the bound may have ended a write.
func (l *writeLimit) over() bool {
	return l.late || !l.at.at.IsZero() && !time.Now().Before(l.at.at)
}
