// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"net"
)

// Abort makes closing c send a reset, where the socket below can, so that the peer
// does not take a part for the whole. A TLS stream must not end with close_notify then,
// so what is below TLS is closed at once. The caller closes c.
//
// It is for package l7: see "Machinery" in the package documentation.
func Abort(c net.Conn) {
	secure := false
	for {
		if l, ok := c.(interface{ SetLinger(int) error }); ok {
			l.SetLinger(0)
			break
		}
		if _, ok := c.(*tls.Conn); ok {
			secure = true
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok { // such as that of a listener which limits connections
			break
		}
		c = w.NetConn()
	}
	if secure {
		c.Close()
	}
}

// breakOff closes c in the midst of what it is used for.
func breakOff(c *Conn) {
	Abort(c)
	c.Close()
}
