// SPDX-License-Identifier: Apache-2.0

//go:build !race && !386 && !s390x

package l4

import (
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// segmentsIn returns how many TCP segments c has received: tcpi_segs_in of tcp(7).
func segmentsIn(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var info [256]byte
	size := uint32(len(info))
	require.NoError(t, raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		require.Zero(t, errno)
	}))
	require.Greater(t, size, uint32(144), "an old kernel")
	return binary.NativeEndian.Uint32(info[140:])
}

// The end of a stream goes in one packet with the last bytes before it, if it has come by then.
func TestEndGoesWithTheLastBytes(t *testing.T) {
	near, client := sockets(t)
	toServer, server := sockets(t)
	_, err := io.WriteString(server, "the last bytes")
	require.NoError(t, err)
	require.NoError(t, server.CloseWrite())
	before := segmentsIn(t, client)
	p := runParker(t)
	ended := make(chan RelayResult, 1)
	go func() { ended <- Relay(t.Context(), NewConn(near), NewConn(toServer), RelayOptions{Parker: p}) }()
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "the last bytes", string(got))
	require.Equal(t, uint32(1), segmentsIn(t, client)-before)

	// The other direction goes on.
	_, err = io.WriteString(client, "more")
	require.NoError(t, err)
	require.NoError(t, client.Close())
	require.Equal(t, RelayResult{AtoB: 4, BtoA: 14}, <-ended)
	require.NoError(t, toServer.Close())
	got, err = io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "more", string(got))
}

// A socket that is connected to itself is told from one that is connected to a server.
func TestSelfConnected(t *testing.T) {
	for addr, anyPort := range map[string]syscall.Sockaddr{
		"127.0.0.1:0": &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
		"[::1]:0":     &syscall.SockaddrInet6{Addr: [16]byte{15: 1}},
	} {
		ln, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		defer ln.Close()
		s, _, ok, err := dialSock("tcp", ln.Addr().String())
		require.NoError(t, err)
		require.True(t, ok)
		require.False(t, s.selfConnected())
		require.NoError(t, s.Close())

		family := syscall.AF_INET
		if _, six := anyPort.(*syscall.SockaddrInet6); six {
			family = syscall.AF_INET6
		}
		fd, err := sysSocket(family)
		require.NoError(t, err)
		s = &sock{fd: int32(fd)}
		defer s.Close()
		require.NoError(t, syscall.Bind(fd, anyPort))
		s.remote, err = sysGetsockname(fd)
		require.NoError(t, err)
		if err := sysConnect(fd, s.remote); err != syscall.EINPROGRESS {
			require.NoError(t, err)
		}
		require.True(t, s.selfConnected())
	}
}

// Over loopback a server is connected to at once, and nothing waits for that, whether or not
// the client has said something yet.
func TestDialOverLoopbackDoesNotWait(t *testing.T) {
	p, err := NewParker() // which does not run, so that what waits for it ends by the timeout
	require.NoError(t, err)
	defer p.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, said := range []string{"", "hello"} {
		near, client := sockets(t)
		_, err = io.WriteString(client, said)
		require.NoError(t, err)
		var c *Conn
		for range 20 { // a busy kernel may take its time
			r := &relay{}
			c, _, err = r.dial(t.Context(), p, NewConn(near), "tcp", ln.Addr().String(), 50*time.Millisecond)
			if err == nil {
				c.Close()
				break
			}
		}
		require.NoError(t, err, "said %q", said)
	}
}
