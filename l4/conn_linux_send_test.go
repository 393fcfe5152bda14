// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !386 && !s390x

package l4

import (
	"encoding/binary"
	"net"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// On loopback a segment has up to 64 KiB, and the kernel waits with it for more.
func TestConnWriteMoreFillsSegments(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	c := NewConn(server)
	for range 3 {
		_, err := c.WriteMore(make([]byte, 4<<10))
		require.NoError(t, err)
	}
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	assert.EqualValues(t, 1, segments(t, server))

	c.flags.set(moreFollows) // as TLS above it does
	for range 3 {
		_, err := c.Write(make([]byte, 4<<10))
		require.NoError(t, err)
	}
	c.flags.clear(moreFollows)
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	assert.EqualValues(t, 2, segments(t, server))
}

// segments returns how many segments with data the socket has sent.
func segments(t *testing.T, c net.Conn) (n uint32) {
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	var info [256]byte // struct tcp_info
	size := uint32(len(info))
	require.NoError(t, raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		require.Zero(t, errno)
	}))
	return binary.NativeEndian.Uint32(info[156:]) // tcpi_data_segs_out
}
