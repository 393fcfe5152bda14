// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"net"
)

// abort makes closing c send a reset, if it can. A TLS stream must not end
// with close_notify then, so what is below is closed first.
func abort(c net.Conn) {
	secure := false
	for {
		if l, ok := c.(interface{ SetLinger(int) error }); ok {
			l.SetLinger(0)
			if secure {
				c.Close()
			}
			return
		}
		if _, ok := c.(*tls.Conn); ok {
			secure = true
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = w.NetConn()
	}
}

// breakOff closes c in the midst of what it is used for.
func breakOff(c *Conn) {
	abort(c)
	c.Close()
}
