// SPDX-License-Identifier: Apache-2.0

//go:build linux && (race || 386 || s390x)

package l4

import (
	"net/netip"
	"syscall"
)

// Calls that have no number of their own on all architectures.

func sysSocket(family int) (int, error) {
	return syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
}

func sysConnect(fd int, to syscall.Sockaddr) error { return syscall.Connect(fd, to) }

func sysAccept(fd uintptr) (int, netip.AddrPort, error) {
	n, sa, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return n, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), err
	case *syscall.SockaddrInet6:
		if sa.ZoneId == 0 {
			return n, netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), err
		}
	}
	return n, netip.AddrPort{}, err
}

func sysShutdown(fd, how int) error { return syscall.Shutdown(fd, how) }
