// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// requestLimit returns how long a wait for the body of x may take by the server
// it came in by.
func (s *Server) requestLimit(x *Exchange) time.Duration {
	limit := orDefault(s.BodyTimeout, defaultBodyTimeout)
	if s.BodyTimeout == 0 && isGRPC(&x.Header) {
		return longer(limit, orDefault(s.StreamTimeout, defaultStreamTimeout))
	}
	return limit
}

// lateClient is timedOut for a wait for the request's body.
func (s *Server) lateClient(x *Exchange, err error) error {
	limit, field := s.requestLimit(x), "Server.BodyTimeout"
	if limit != orDefault(s.BodyTimeout, defaultBodyTimeout) {
		field = "Server.StreamTimeout"
	}
	return timedOut(field, limit, err)
}

// probe has TCP find out whether the peer of c is there, if c is over TCP.
func probe(c net.Conn) {
	for {
		switch u := c.(type) {
		case *net.TCPConn:
			_ = u.SetKeepAliveConfig(keepAlive())
			return
		case *tls.Conn:
			c = u.NetConn()
		case *l4.Conn:
			c = u.NetConn()
		case *handedTLS:
			c = u.Conn
		case *handedConn:
			c = u.Conn
		default:
			return
		}
	}
}

// clientLimits returns what a downstream tells of s.
func (s *Server) clientLimits() clientLimits {
	return clientLimits{orDefault(s.StreamTimeout, defaultStreamTimeout), orDefault(s.SendTimeout, defaultSendTimeout)}
}
