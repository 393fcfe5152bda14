// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"net/netip"
	"syscall"
)

// Adopt returns a connection that takes the place of nc, which must be new and known to
// nobody else: over the same socket, but with less to do in each wait for the peer. It
// returns nc itself if that is neither a *net.TCPConn nor a stream *net.UnixConn, on other
// systems than Linux, and without a spare descriptor.
//
// It is for package l7: see "Machinery" in the package documentation.
func Adopt(nc net.Conn) net.Conn {
	s := &sock{dialled: true}
	var raw syscall.RawConn
	switch c := nc.(type) {
	case *net.TCPConn:
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			s.remote = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
			raw, _ = c.SyscallConn()
		}
	case *net.UnixConn:
		if a, ok := c.RemoteAddr().(*net.UnixAddr); ok && a.Net == "unix" {
			s.unix, s.path = true, a
			raw, _ = c.SyscallConn()
		}
	}
	if raw == nil || inBubble() {
		return nc
	}
	s.fd = -1
	err := raw.Control(func(fd uintptr) {
		if n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0); errno == 0 {
			s.fd = int32(n)
		}
	})
	if err != nil || s.fd < 0 {
		return nc
	}
	s.local = nc.LocalAddr()
	nc.Close() // its descriptor, not the socket
	return s
}
