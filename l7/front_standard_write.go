// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"
)

func (s *standard) writeInterim(r *Reply) error {
	if s.x.proto == 0 || r.Status == http.StatusContinue {
		return nil // net/http sends its own 100 when the body is read
	}
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	h := s.w.Header()
	saved := maps.Clone(h)
	clear(h) // these fields are for the final reply
	addFields(h, &r.Header)
	if s.r.ProtoMajor > 1 {
		// Net/http sends a copy without this field if there is one. Otherwise it may
		// still read h behind WriteHeader, if the client has reset the stream.
		h["Content-Length"] = nil
	}
	s.w.WriteHeader(r.Status)
	clear(h)
	maps.Copy(h, saved)
	return nil
}

func (s *standard) writeHead(r *Reply) error {
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	if s.lent != nil {
		s.lent.tell(s.x, r)
	}
	h := s.w.Header()
	addFields(h, &r.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // suppresses guessing
	}
	s.noBody = s.x.bodiless(r.Status)
	s.chunked = r.ContentLength < 0
	if r.ContentLength >= 0 && r.Status != http.StatusNoContent && !s.x.opensTunnel(r.Status) {
		h.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	s.beforeHead(r.Server != nil)
	if protocols := r.requires(); protocols != "" && s.r.ProtoAtLeast(1, 1) && s.r.ProtoMajor == 1 {
		if s.r.Close {
			h.Set("Connection", "close") // which net/http would write in place of what is here
		}
		h.Add("Connection", "upgrade")
		h.Set("Upgrade", protocols)
	}
	s.begun = true
	s.w.WriteHeader(r.Status)
	return nil
}

func (s *standard) writeBody(p []byte) error {
	if s.noBody || len(p) == 0 {
		return nil
	}
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	s.sending()
	_, err := s.w.Write(p)
	return err
}

func (s *standard) direct(int64) directWriter { return nil }

func (s *standard) sending() {
	s.writes.renew(s.w)
	if s.x.grpc {
		s.keepReading()
	}
}

func (s *standard) flush() error {
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	s.sending()
	err := http.NewResponseController(s.w).Flush()
	s.writes.lift(s.w)
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

func (s *standard) finish(trailer *Fields) error {
	if trailer == nil || trailer.Len() == 0 || s.noBody || !s.chunked && s.x.proto < 2 {
		return nil
	}
	if err := s.flush(); err != nil { // the trailer needs a head that is already sent
		return err
	}
	if !s.enter() {
		return errReturned
	}
	defer s.leave()
	s.x.noteGRPC(trailer)
	for name, v := range trailer.All() {
		s.w.Header().Add(http.TrailerPrefix+http.CanonicalHeaderKey(name), v)
	}
	return nil
}

func (s *standard) abort() { s.aborted = true }

// A writeLimit bounds the writes of a reply under an http.Server of the host's
// that has no bound itself: in HTTP/2, a client that opens no window would block
// the stream, and the server's side with it, for ever. Nil means none.
type writeLimit struct {
	limit time.Duration // 0 means none
	at    deadline
	late  bool // a deadline has passed
}

// boundReply bounds the writes of a relayed reply. Connections and streams of a
// Server are bounded already, and a bound set by the host takes precedence.
func (s *standard) boundReply(d time.Duration) {
	if s.srv != nil || d <= 0 && s.writes == nil {
		return
	}
	if h, ok := s.r.Context().Value(http.ServerContextKey).(*http.Server); ok && h.WriteTimeout <= 0 {
		if s.writes == nil {
			s.writes = new(writeLimit)
		}
		s.writes.limit = d
	}
}

func (s *standard) replyLate() bool { return s.writes.over() }

// renew bounds the next write to w.
func (l *writeLimit) renew(w http.ResponseWriter) {
	if l == nil || l.limit <= 0 {
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
	if l != nil && !l.at.at.IsZero() && !l.over() {
		l.at.at = time.Time{}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	}
}

// over reports whether the bound may have ended a write.
func (l *writeLimit) over() bool {
	return l != nil && (l.late || !l.at.at.IsZero() && !time.Now().Before(l.at.at))
}
