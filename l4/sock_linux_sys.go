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

func sysConnect(fd int, to syscall.Sockaddr) error {
	var errno syscall.Errno
	switch to := to.(type) {
	case *syscall.SockaddrInet4:
		raw := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Addr: to.Addr}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], uint16(to.Port))
		_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw)), syscall.SizeofSockaddrInet4)
	case *syscall.SockaddrInet6:
		raw := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Addr: to.Addr}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], uint16(to.Port))
		_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw)), syscall.SizeofSockaddrInet6)
	default:
		return syscall.Connect(fd, to)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// sysAccept returns no address for a Unix socket, and for an IPv6 address with
// a zone none either, so that it is looked up.
func sysAccept(fd uintptr) (int, netip.AddrPort, error) {
	var (
		raw  syscall.RawSockaddrInet6 // room for either family
		size = uint32(syscall.SizeofSockaddrInet6)
		from netip.AddrPort
	)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, from, errno
	}
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:])
	switch {
	case raw.Family == syscall.AF_INET:
		from = netip.AddrPortFrom(netip.AddrFrom4((*syscall.RawSockaddrInet4)(unsafe.Pointer(&raw)).Addr), port)
	case raw.Family == syscall.AF_INET6 && raw.Scope_id == 0:
		from = netip.AddrPortFrom(netip.AddrFrom16(raw.Addr), port)
	}
	return int(n), from, nil
}

func sysShutdown(fd, how int) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0); errno != 0 {
		return errno
	}
	return nil
}
