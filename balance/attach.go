// SPDX-License-Identifier: Apache-2.0

package balance

// Attached is something that a server holds open: a live or an idle connection. It must
// be comparable, as a pointer is.
type Attached interface {
	// Cut says that the server is in trouble or gone. With live false it asks to close
	// what carries no work; with live true to close at once. It may be called more than
	// once, from any goroutine, and must not block.
	//
	// The caller holds no lock, so Cut may call any method of the server and its pool. It
	// may come from within [Server.Attach].
	Cut(live bool, reason string)
}

// Attach registers a to be told when s goes down, into maintenance or leaves. If that
// is so already, and s gives no leases because of it, a is told before Attach returns:
// the caller must hold no lock that a.Cut takes. A server that is down and yet used, by
// [Pool.Panic], is no reason to tell a new connection. It is meant to be called once per
// connection, never per request.
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

// Cut calls Cut of all that is attached. The pool itself calls it with live false when
// s goes down, into maintenance, gets another address or leaves, and when a panic that
// used it although it is down ends; live true is for the host.
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
