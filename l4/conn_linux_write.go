// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && (386 || s390x)

package l4

import (
	"syscall"
	"unsafe"
)

// Here sockets have no system calls of their own, and writes no flags.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}

func sysWrite(fd uintptr, p []byte, _ uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}
