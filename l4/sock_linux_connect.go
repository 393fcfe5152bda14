// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !386 && !s390x

package l4

import (
	"encoding/binary"
	"syscall"
	"unsafe"
)

// sysConnect is connect(2) on a non-blocking socket, without the notice to the
// scheduler: to loopback it takes as long as a write.
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
