// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"sync"
	"sync/atomic"
)

// usage is what a request needs from the connections to a server.
type usage struct {
	session *session // nil if it is not known
	first   bool     // the request is the session's first
}

// A session is a client's connection, as the owner of server connections that
// are kept for it only.
type session struct {
	program bool        // it is a Transport: a connection authenticated by one caller is not reused by another
	ended   atomic.Bool // connections that come back are closed

	mu    sync.Mutex
	hosts []keeper // that may keep a connection for it
}

// A keeper keeps connections to a server for sessions.
type keeper interface{ disown(s *session) }

// note records that h keeps a connection for the session. It returns false if
// the session has ended.
func (s *session) note(h keeper) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return false
	}
	if !slices.Contains(s.hosts, h) {
		s.hosts = append(s.hosts, h)
	}
	return true
}

// end closes the connections kept for the session. A nil session has none.
func (s *session) end() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.ended.Store(true)
	hosts := s.hosts
	s.mu.Unlock()
	for _, h := range hosts {
		h.disown(s)
	}
}
