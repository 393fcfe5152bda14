// SPDX-License-Identifier: Apache-2.0

package l4

import "net"

// Ends counts connections or requests by who ended them, see [Cause].
type Ends [causes]uint64

// Total returns the sum of all causes.
func (e Ends) Total() uint64 {
	var sum uint64
	for _, n := range e {
		sum += n
	}
	return sum
}

// Stats are figures of a Server since it was made. All but Open and Parked only grow.
type Stats struct {
	Open            int    // connections
	Parked          int    // of them, those that are looked after by events and have no goroutine
	Accepted        uint64 // connections
	AcceptErrors    uint64 // times that a listener failed
	AtLimit         uint64 // times that accepting had to wait, as MaxConns were open
	Handshakes      uint64 // of TLS, by [TerminateTLS]
	HandshakeErrors uint64 // those that failed
	Ends            Ends   // of connections that are closed; [Denied] are those that a limit or a rule refused
	BytesIn         uint64 // from clients, on the wire: with TLS and PROXY headers, as in Record
	BytesOut        uint64 // to clients, likewise
}

// Stats returns the figures of s. It visits each open connection with the lock that
// accepting needs too: 100 000 of them delay it by a few milliseconds.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.totals
	st.Open = s.conns.n
	st.AcceptErrors, st.AtLimit = s.acceptErrors.Load(), s.atLimit.Load()
	st.Handshakes, st.HandshakeErrors = s.handshakes.Load(), s.handshakeErrors.Load()
	for c := s.conns.first; c != nil; c = c.member.next {
		st.BytesIn += uint64(c.BytesRead())
		st.BytesOut += uint64(c.BytesWritten())
		if c.parker.Load() != nil {
			st.Parked++
		}
	}
	return st
}

// tally adds a connection that was closed; s.mu is held.
func (s *Server) tally(c *Conn) {
	s.totals.Ends[c.member.end.Load()]++
	s.totals.BytesIn += uint64(c.BytesRead())
	s.totals.BytesOut += uint64(c.BytesWritten())
}

// shookHands counts a handshake of TLS over c.
func shookHands(c *Conn, ok bool) {
	conn := underlying(c)
	switch {
	case conn == nil:
	case ok:
		conn.member.server.handshakes.Add(1)
	default:
		conn.member.server.handshakeErrors.Add(1)
	}
}

// endConn notes in the record and in the figures of the server how the connection that c
// is or wraps has ended. Only the first call counts.
func endConn(c net.Conn, t Termination, err error) {
	if conn := underlying(c); conn != nil {
		conn.member.note(t, err)
	}
}

func (m *member) note(t Termination, err error) {
	m.end.CompareAndSwap(0, uint32(t.Cause))
	m.record.End(t, err)
}
