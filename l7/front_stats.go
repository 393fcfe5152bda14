// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"

	"github.com/penstock-lb/penstock/l4"
)

// totals are the counters of a Server.
type totals struct {
	exchanges tally
	ends      [len(l4.Ends{})]atomic.Uint64 // except l4.Normal, which is computed from the number of exchanges

	accepted, acceptErrors, atLimit, handshakes, handshakeErrors atomic.Uint64

	parked atomic.Int64
}

// Open returns the number of open connections, including those of the standard
// front, of attached fronts, and upgraded ones.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns.n + len(s.handed) - s.both + int(s.outside.Load())
}

// Stats returns the figures of s.
func (s *Server) Stats() Stats {
	t := &s.totals
	st := Stats{
		Open:     s.Open(),
		Parked:   int(max(0, t.parked.Load())),
		Accepted: t.accepted.Load(), AcceptErrors: t.acceptErrors.Load(), AtLimit: t.atLimit.Load(),
		Handshakes: t.handshakes.Load(), HandshakeErrors: t.handshakeErrors.Load(),
	}
	for c := range t.ends {
		st.Ends[c] = t.ends[c].Load()
	}
	others := st.Ends.Total() // read before the exchanges, which are counted first
	st.Requests, st.BytesIn, st.BytesOut = t.exchanges.read()
	st.Ends[l4.Normal] = st.Requests.Total() - others
	return st
}

// ended counts an exchange and completes its record.
func (s *Server) ended(x *Exchange) {
	s.totals.exchanges.note(x)
	if c := x.Record.Termination.Cause; c != l4.Normal && int(c) < len(s.totals.ends) {
		s.totals.ends[c].Add(1)
	}
	x.end(s.OnDone)
}
