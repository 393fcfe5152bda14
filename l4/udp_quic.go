// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"

	"github.com/penstock-lb/penstock/balance"
)

// QUIC says that the datagrams of a [UDPProxy] are QUIC, version 1 or 2, which stays
// encrypted from client to server. It routes connections by what their ClientHello asks for,
// and keeps a client whose address changes at its server.
//
//	&l4.UDPProxy{
//		Pool: web,
//		QUIC: &l4.QUIC{Routes: []l4.QUICRoute{
//			{Match: l4.SNI("a.test", "*.a.test"), Pool: a},
//			{Match: l4.ALPN("doq"), Pool: resolvers},
//		}},
//	}
//
// # Addresses that change
//
// A flow is still one address of a client and a socket to a server. The connection ids in a
// datagram choose the server of a flow that begins:
//
//   - A client whose address was changed under way (NAT rebinding) continues with the id it
//     used before. Such ids are known: those that the server names in the handshake, Retry
//     included, whatever their length; the client's own first one, and those that it has used
//     since from an address that has one flow. The last 8 that the server has named and the
//     last 8 that the client has used are kept, so that an observer of an id cannot make the
//     proxy forget it by using many others.
//   - A client that changes its address on purpose (migration) begins to use an id at that
//     moment that it got encrypted (NEW_CONNECTION_ID). It says nothing to anyone but the
//     server: only ServerOf can tell which one.
//   - Ids of length 0 name no connection: such clients are told apart by address alone.
//
// A client whose address changes before its server has been reached is not followed yet: its
// datagrams from the new address are dropped until there is a server, and it sends them
// again (RFC 9002, section 6.2). To keep them would hold memory for any address that claims
// the id.
//
// A datagram with an id that is not known goes where the others from its address go: to each
// server, if there are several, but to three at most that the client has not shown to get
// replies from, since its address may be forged. From a new address, it goes to a server of
// Pool, as a connection would: a hashing policy chooses the same one again after a restart of
// this process, and any other server can end the connection at once, by a stateless reset, if
// it shares the key for that.
//
// The server sees the new address as one, since it comes from another socket, and
// validates it (RFC 9000, sections 8.2 and 9.3): nothing is sent to an address that has not
// sent anything, and a forged source cannot divert a connection.
//
// Connections from one address and port to one pool share a server.
//
// What goes to an id that is known goes to its server and not through Routes again, an Initial
// packet too, as a connection has those until its handshake is done (RFC 9000, section 5.2).
// So a client can begin another connection, with any name in its ClientHello, at a server that
// it was routed to, or whose ids it knows. Routes say where connections go. They do not keep
// clients from a name that a server serves beside others: the server has to.
//
// # Bounds
//
// A datagram that begins a connection must have 1200 bytes (RFC 9000, section 14.1), and one
// that Routes look into must be encrypted as an Initial packet is. A ClientHello may be spread
// over datagrams, in any order, of up to 16 KiB within 5 s; until it is there, a flow has
// neither a server nor a socket, and if it is not there by then, or its parts contradict each
// other, the flow ends, and what the client sends again begins another. An address has up to
// 32 flows, those among them. A flow whose client has not shown that replies reach it ends
// after 10 s without a datagram, if IdleTimeout is longer.
//
// # What it does not do
//
// It does not decide about other versions of QUIC by what they contain: matchers that need a
// ClientHello do not match, and the server negotiates the version. With Encrypted Client
// Hello, the name is the outer one. A [Restart] hands over the socket, not what is known of
// ids. UDPProxy.Replies does not apply.
//
// Source: RFC 8999; RFC 9000, sections 5.1 and 5.2; RFC 9001, section 5; RFC 9369, section 3.
type QUIC struct {
	// Routes are tried in order for each new connection, as those of a [Router] are; the
	// Pool of the UDPProxy takes what none does, and may then be nil, which drops it. Matchers
	// see addresses and the ClientHello, and no bytes.
	Routes []QUICRoute

	// ServerOf, if not nil, returns the name of the server that has issued a connection id,
	// or "" if id names none, for servers that write themselves into their ids (as by the
	// Internet-Draft QUIC-LB). It is called for ids that are not known, other than those
	// that clients begin with. The id is at the beginning of id: there may be bytes after
	// it, since a short header does not have its length. Clients choose what it gets. It must
	// not block, nor keep or change id.
	ServerOf func(id []byte) string
}

// A QUICRoute sends the connections that Match takes to Pool.
type QUICRoute struct {
	Match Matcher       // nil takes everything
	Pool  *balance.Pool // nil drops them
}

func (q *QUIC) check(c *checks) {
	for i, r := range q.Routes {
		if r.Pool != nil {
			c.In(fmt.Sprintf("QUIC.Routes[%d].Pool", i), r.Pool)
		}
	}
}

// Check returns what is wrong with q. [UDPProxy.Serve] calls it.
func (q *QUIC) Check() error { return checkAll(q) }

// decide asks the routes, as [Router] does; errUndecided if one needs more. A nil pool without
// an error is one that drops.
func (q *QUIC) decide(p *Peeked, rest *balance.Pool) (*balance.Pool, error) {
	for i := range q.Routes {
		v := Yes
		if q.Routes[i].Match != nil {
			v = q.Routes[i].Match(p)
		}
		switch {
		case v == Yes:
			return q.Routes[i].Pool, nil
		case v == NeedMore && !p.Final:
			return nil, errUndecided
		}
	}
	return rest, nil
}
