// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// The kernel asks whether a server is still there, whatever the connection to it is made of.
func TestProbeOfServers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for name, wrap := range map[string]func(nc net.Conn) net.Conn{
		"dialled by the host": func(nc net.Conn) net.Conn { return nc },
		"adopted":             func(nc net.Conn) net.Conn { return l4.Adopt(nc) },
		"adopted, TLS":        func(nc net.Conn) net.Conn { return tls.Client(underTLS{l4.NewConn(l4.Adopt(nc))}, &tls.Config{}) },
	} {
		nc, err := (&net.Dialer{KeepAlive: -1}).Dial("tcp", ln.Addr().String())
		require.NoError(t, err, name)
		c := l4.NewConn(wrap(nc))
		defer c.Close()
		alive := func() (v int) {
			var under net.Conn = c
			if t, ok := c.NetConn().(*tls.Conn); ok {
				under = t.NetConn()
			}
			raw, err := under.(syscall.Conn).SyscallConn()
			require.NoError(t, err, name)
			require.NoError(t, raw.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) }))
			require.NoError(t, err, name)
			return v
		}
		require.Zero(t, alive(), name)
		probe(c)
		require.Equal(t, 1, alive(), name)
	}
}
