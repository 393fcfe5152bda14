// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !386 && !s390x

package l4

import (
	"syscall"
	"unsafe"
)

// recvfrom(2) and sendto(2) say that it is a socket: read(2) and write(2) find
// that out on a longer way through the kernel.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}

func sysWrite(fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL|flags, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}
