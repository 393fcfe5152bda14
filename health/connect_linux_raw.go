// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !386 && !s390x

package health

import (
	"encoding/binary"
	"syscall"
	"unsafe"
)

// sysConnect is connect(2) on a non-blocking socket, without telling the scheduler
// that the thread may block: it does not, but on loopback it does the work of
// both ends, and takes so long that the scheduler would wake another thread.
// So does sysClose.
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

func sysClose(fd int) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// sysDisconnect makes a connected socket one that is not, with a reset to the
// peer, and reports whether it could.
func sysDisconnect(fd int) bool {
	raw := syscall.RawSockaddr{Family: syscall.AF_UNSPEC}
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw)), syscall.SizeofSockaddrInet4)
	return errno == 0
}
