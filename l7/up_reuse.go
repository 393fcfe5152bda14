// SPDX-License-Identifier: Apache-2.0

package l7

// Reuse says which requests may use an existing connection to a server, as
// HAProxy's http-reuse does. A session is one connection of a client. A
// [Transport] is a session too, one that is never at its first request. Under
// an [http.Server] of the host's, requests of one connection cannot be told
// apart from others, so each request is a session.
//
// The risk of reuse is a request that reaches a connection just as the server
// closes it. If the request may be sent twice, the [Proxy] sends it again,
// whatever the mode; otherwise the client gets 502. A client does not expect
// that for its first request. For a later one it could happen on a connection
// of its own as well, so browsers repeat such a request by themselves.
//
// With ReuseAlways an HTTP/2 connection is shared by all sessions. In the other
// modes it belongs to one session while it has streams, so that no client waits
// behind the streams of another.
type Reuse uint8

const (
	// ReuseAlways lets any request take any idle connection. A server with N
	// concurrent requests has N connections.
	ReuseAlways Reuse = iota
	// ReuseSafe, the default of HAProxy, opens a connection for the first
	// request of each session. Later ones take any idle connection.
	ReuseSafe
	// ReuseAggressive lets the first request of a session take a connection that
	// has been reused before, which shows that the server keeps connections open.
	ReuseAggressive
	// ReuseNever gives each session connections of its own, which end with it.
	// At most five for a server are kept idle.
	ReuseNever
)

func (r Reuse) String() string {
	return word(r, "always", "safe", "aggressive", "never")
}

// Ranks of a connection for a request; with the zero rank the request may not
// use it.
const (
	rankGood = 1 + iota
	rankBest
)

// rank returns the rank of an idle connection for the first request of a
// session, or a later one; proven means that it has been reused before. Later
// requests prefer unproven connections, which first requests may not use.
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

// maxOwned is how many idle connections to one server a session keeps.
const maxOwned = 5
