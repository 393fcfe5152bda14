// SPDX-License-Identifier: Apache-2.0

package l7

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
	return word(r, "always", "safe", "aggressive", "never")
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

// maxOwned is how many idle connections to one server a session keeps.
const maxOwned = 5
