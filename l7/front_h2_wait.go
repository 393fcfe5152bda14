// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// An h2Part says since when the reader has waited for the rest of a head. A frame of
// another type than DATA, of which only a part has come, counts as one.
type h2Part struct {
	since time.Time // zero if it waits for none
	units uint64    // of the link at that time: with another number it is another head
}

// boundWait sets the deadline of a wait that begins at now. That of a head counts from
// its first byte, and that of a part of DATA from the last one.
func (f *h2Front) boundWait(now time.Time) {
	c := f.conn
	head := orDefault(c.srv.ReadHeaderTimeout, defaultHeaderTimeout)
	if !f.inHead() {
		f.part.since = time.Time{}
	} else if f.part.since.IsZero() || f.part.units != f.units {
		f.part = h2Part{now, f.units}
	}
	limit := orDefault(c.srv.IdleTimeout, defaultIdleTimeout)
	switch {
	case !f.part.since.IsZero() && head > 0:
		c.readAt.boundAt(f.part.since.Add(min(head, longest)), c.c.SetReadDeadline, nil)
		return
	case f.pinged:
		limit = h2PingTimeout
	case !c.in.empty() || f.h2.InHead():
		limit = head
	}
	c.readAt.bound(now, limit, c.c.SetReadDeadline, nil)
}

// inHead reports whether a head has come in part, or a frame that may be one.
func (f *h2Front) inHead() bool {
	b := f.conn.in.bytes()
	return f.h2.InHead() || len(b) > 0 && (len(b) < h2.HeaderLen || h2.Type(b[3]) != h2.Data)
}

// linger discards the rest of the request after the reply, for a moment: its END_STREAM may
// be on its way, and some clients take a reset for a failure of the whole stream, although
// they must not (RFC 9113, section 8.1). Not more than a quarter of the streams do so at
// once, lest the client waits for one to begin. F.mu is held.
func (s *h2Exchange) linger() {
	f, due, most := s.f, time.Time{}, s.got+lingerBytes
	s.stopped = true
	switch {
	case s.st.State() != h2.HalfClosedLocal: // as nearly all
		return
	case s.x.Method == http.MethodConnect || s.x.wsKey != "": // a tunnel is over when we are done with it
		return
	case f.lingers > f.granted/4:
		return
	}
	f.lingers++
	defer func() { f.lingers-- }()
	for s.err == nil && s.got < most && s.st.State() == h2.HalfClosedLocal {
		if len(f.h2.Out) > 0 && !f.writing { // the client may be waiting for the reply, or a window
			f.mu.Unlock()
			f.flush()
			f.mu.Lock()
			continue
		}
		if due.IsZero() {
			due = time.Now().Add(lingerTime)
		}
		if !f.sleepUntil(&s.recv, due) {
			return
		}
	}
}
