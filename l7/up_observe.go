// SPDX-License-Identifier: Apache-2.0

package l7

import "slices"

// A seenTry is a try that observers have been told of.
type seenTry struct {
	Try
	x         *Exchange
	observers []TryObserver
	req       []byte // the request as this try sends it; nil if there is nothing of its own in it
	headLen   int    // of req without the body
}

// show tells observers that a try begins, and makes the request anew if they have
// something to tell the server.
func (t *attempt) show(l *try) {
	s := &seenTry{x: t.x, observers: t.x.observers}
	s.Number, s.Server, s.Assigned = t.tries, l.lease.Server(), l.assigned
	if r := l.race; r != nil && l == &r.tries[1] {
		s.Hedge = true
		s.Number++
	}
	l.seen = s
	s.tell("BeginTry", TryObserver.BeginTry)
	s.Header.list = slices.DeleteFunc(s.Header.list, func(fd Field) bool {
		return fd.kind.owned() || fd.kind == kindExpect || fd.kind == kindTrailer
	})
	if s.Header.Len() > 0 && s.Header.unsendable() == nil {
		s.req = appendOwnHead(nil, string(t.req.B[:t.headLen]), &s.Header)
		s.headLen = len(s.req)
		s.req = append(s.req, t.req.B[t.headLen:]...)
	}
}

// close tells them how it ended.
func (s *seenTry) close(l *try) {
	s.Connected, s.FirstByte, s.Reused = l.connected, l.firstByte, l.reused
	if l.local != nil {
		s.Status = l.outcome.Status
	}
	s.tell("EndTry", TryObserver.EndTry)
}

func (s *seenTry) tell(what string, call func(TryObserver, *Try)) {
	for _, o := range s.observers {
		_ = guard(s.x, what, func() error { call(o, &s.Try); return nil })
	}
}

// request returns the request as l sends it, and how much of that is the head.
func (t *attempt) request(l *try) (req []byte, headLen int) {
	if s := l.seen; s != nil && s.req != nil {
		return s.req, s.headLen
	}
	return t.req.B, t.headLen
}

// appendOwnHead appends a head of a request with lines of own in the place of those of
// the same names.
func appendOwnHead(b []byte, head string, own *Fields) []byte {
	line, rest, _ := cutLine(head)
	for line != "" {
		b = append(append(b, line...), "\r\n"...)
		for line, rest, _ = cutLine(rest); line != "" && own.hasAlike(line[:indexByte(line, ':')]); {
			line, rest, _ = cutLine(rest)
		}
	}
	for i := range own.list {
		b = append(append(b, own.list[i].Name...), ": "...)
		b = append(append(b, own.list[i].Value...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}
