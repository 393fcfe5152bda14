// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"time"
)

// requestLimit returns the limit that the server of x sets for a wait for its
// body.
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

// A prober is a socket of l4's.
type prober interface {
	Probe(net.KeepAliveConfig) error
}

// probe turns on TCP keep-alive for c, if c is a TCP connection.
func probe(c net.Conn) {
	for {
		switch u := c.(type) {
		case *net.TCPConn:
			_ = u.SetKeepAliveConfig(keepAlive())
			return
		case prober:
			_ = u.Probe(keepAlive())
			return
		case interface{ NetConn() net.Conn }:
			c = u.NetConn()
		default:
			return
		}
	}
}

// clientLimits returns the limits of s for the server's side.
func (s *Server) clientLimits() clientLimits {
	return clientLimits{orDefault(s.StreamTimeout, defaultStreamTimeout), orDefault(s.SendTimeout, defaultSendTimeout)}
}
