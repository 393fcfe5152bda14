// SPDX-License-Identifier: Apache-2.0

package balance

// Attached is a connection to a server, in use or idle. It must be comparable, as a
// pointer is.
type Attached interface {
	// Cut is called when the server has a problem or has left. With live false it
	// closes the connection if it is idle; with live true it closes it at once. It may
	// be called more than once, from any goroutine, and must not block.
	//
	// The caller holds no lock, so Cut may call any method of the server and its pool. It
	// may come from within [Server.Attach].
	Cut(live bool, reason string)
}

// Attach registers a, whose Cut is called when s goes down, goes into maintenance or
// leaves. If s is already in such a state and gives no leases, Cut is called before
// Attach returns: the caller must hold no lock that a.Cut takes. It is not called at
// once if s is down but used because of [Pool.Panic]. Call Attach once per connection,
// not per request.
func (s *Server) Attach(a Attached) {
	s.mu.Lock()
	if s.attached == nil {
		s.attached = make(map[Attached]struct{})
	}
	s.attached[a] = struct{}{}
	s.mu.Unlock()
	if state := s.State(); !state.persistent() && admission(s.open.Load()) == shut {
		a.Cut(false, "server is "+state.String())
	}
}

// Detach undoes Attach.
func (s *Server) Detach(a Attached) {
	s.mu.Lock()
	delete(s.attached, a)
	s.mu.Unlock()
}

// Cut closes the idle connections to s; if live is true, also those in use, with what is
// under way on them. It calls the Cut of everything attached, and returns before all
// is closed. The reason is put into the errors of what is cut. The pool itself calls it
// with live false when s goes down, goes into maintenance, changes its address or leaves,
// and at the end of panic mode if s is down; live true is for the host, and for
// health.Checker. It does not change the state of s: new connections are made at once
// unless that forbids them.
func (s *Server) Cut(live bool, reason string) {
	s.mu.Lock()
	all := make([]Attached, 0, len(s.attached))
	for a := range s.attached {
		all = append(all, a)
	}
	s.mu.Unlock()
	for _, a := range all { // without the lock: a may call Detach
		tellCut(a, live, reason)
	}
}
