// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !386 && !s390x

package l4

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"
)

// The calls that make and end a connection, on non-blocking sockets and
// without the notice to the scheduler, as in conn_linux_norace.go.

func sysSocket(family int) (int, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, uintptr(family), syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func sysConnect(fd int, to netip.AddrPort) error {
	raw := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Addr: to.Addr().As16()} // room for either family
	size := uintptr(syscall.SizeofSockaddrInet6)
	if to.Addr().Is4() {
		*(*syscall.RawSockaddrInet4)(unsafe.Pointer(&raw)) = syscall.RawSockaddrInet4{Family: syscall.AF_INET, Addr: to.Addr().As4()}
		size = syscall.SizeofSockaddrInet4
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], to.Port())
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw)), size); errno != 0 {
		return errno
	}
	return nil
}

// sysAccept returns no address for a Unix socket, and for an IPv6 address with
// a zone none either, so that it is looked up.
func sysAccept(fd uintptr) (int, netip.AddrPort, error) {
	var raw syscall.RawSockaddrInet6 // room for either family
	size := uint32(syscall.SizeofSockaddrInet6)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), addrPortOf(&raw), nil
}

// sysGetsockname returns no address where sysAccept returns none.
func sysGetsockname(fd int) (netip.AddrPort, error) {
	var raw syscall.RawSockaddrInet6
	size := uint32(syscall.SizeofSockaddrInet6)
	_, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return addrPortOf(&raw), nil
}

func addrPortOf(raw *syscall.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:])
	switch {
	case raw.Family == syscall.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*syscall.RawSockaddrInet4)(unsafe.Pointer(raw)).Addr), port)
	case raw.Family == syscall.AF_INET6 && raw.Scope_id == 0:
		return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr), port)
	}
	return netip.AddrPort{}
}

func sysShutdown(fd, how int) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0); errno != 0 {
		return errno
	}
	return nil
}
