// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"sync"
	"sync/atomic"
)

// usage is what a request asks of the connections to a server.
type usage struct {
	session *session // nil if it is not known
	first   bool     // the request is the session's first
}

// A session is a client's connection, for what is kept open to servers on its
// behalf only.
type session struct {
	program bool        // it is a Transport: what one caller logged in is not for the next
	ended   atomic.Bool // what comes back is closed

	mu    sync.Mutex
	hosts []keeper // that may keep something
}

// A keeper keeps connections to a server for sessions.
type keeper interface{ disown(s *session) }

// note says that h keeps something for the session. It reports false if the
// session has ended.
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

// end closes what is kept for the session. A nil session has nothing.
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
