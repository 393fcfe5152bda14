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

func sysConnect(fd int, to netip.AddrPort) error {
	if to.Addr().Is4() {
		return syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	return syscall.Connect(fd, &syscall.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
}

func sysAccept(fd uintptr) (int, netip.AddrPort, error) {
	n, sa, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	return n, addrPortOf(sa), err
}

func sysGetsockname(fd int) (netip.AddrPort, error) {
	sa, err := syscall.Getsockname(fd)
	return addrPortOf(sa), err
}

func addrPortOf(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		if sa.ZoneId == 0 {
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
	}
	return netip.AddrPort{}
}

func sysShutdown(fd, how int) error { return syscall.Shutdown(fd, how) }
