// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Reuse says which requests may go over a connection to a server that is open
// already. It is what HAProxy calls http-reuse. A session is one connection of
// a client; a [Transport] is a session too, one that is never at its first
// request. Under a host's own [http.Server] nobody can tell which requests came
// over one connection: there each request is a session.
//
// What is at stake is the request that reaches a connection just as the server
// closes it. One that may be sent twice is sent again by the [Proxy], whatever
// the mode; another one ends in 502. To a client's first request such an end
// comes as a surprise, while a later one could have met it on a connection of
// its own as well, so that browsers repeat it by themselves.
//
// A connection of HTTP/2 is shared by everybody with ReuseAlways. In the other
// modes it belongs to one session as long as it has streams, so that nobody
// waits behind a stranger's.
type Reuse uint8

const (
	// ReuseAlways lets any request take any idle connection. A server with N
	// requests at once gets N connections.
	ReuseAlways Reuse = iota
	// ReuseSafe, the default of HAProxy, opens a connection for the first
	// request of each session. Later ones take any idle connection.
	ReuseSafe
	// ReuseAggressive lets the first request of a session take a connection that
	// has been reused before, which shows that the server means to keep it.
	ReuseAggressive
	// ReuseNever gives each session connections of its own, which end with it.
	// At most five for a server are kept idle.
	ReuseNever
)

func (r Reuse) String() string {
	return [...]string{"always", "safe", "aggressive", "never"}[r]
}

// Ranks of a connection for a request; the zero rank is that of one which it
// may not have.
const (
	rankGood = 1 + iota
	rankBest
)

// rank says how good an idle connection is for the first request of a session,
// or a later one; proven means that it has been reused before. Those that are
// not proven are kept for whom they may serve.
func (r Reuse) rank(first, proven bool) int {
	switch {
	case r == ReuseAlways:
		return rankBest
	case r == ReuseNever, first && r == ReuseSafe, first && !proven:
		return 0
	case first || !proven:
		return rankBest
	}
	return rankGood
}

// usage is what a request asks of the connections to a server.
type usage struct {
	session *session // nil if it is not known
	first   bool     // the request is the session's first
}

// maxOwned is how many idle connections to one server a session keeps.
const maxOwned = 5

// A session is a client's connection, for what is kept open to servers on its
// behalf only.
type session struct {
	program bool        // it is a Transport: what one caller logged in is not for the next
	ended   atomic.Bool // what comes back is closed

	mu    sync.Mutex
	hosts []*upHost // that may keep something
}

// note says that h keeps something for the session. It reports false if the
// session has ended.
func (s *session) note(h *upHost) bool {
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

func (c *byteConn) session(need bool) usage {
	if need && c.owns == nil {
		c.owns = new(session)
	}
	return usage{c.owns, c.served == 1}
}
