// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package l4

import (
	"syscall"
	"unsafe"
)

// sysRead, sysWrite and sysSplice are the calls on non-blocking sockets,
// without the notice to the scheduler that syscall.Read gives: when a call
// with that notice takes longer than 20 us, as a write to loopback does, the
// runtime wakes another thread to take over the processor.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}

func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == syscall.EINTR {
			continue
		}
		return int(n), errno
	}
}

func sysSplice(from, to uintptr, n int) (int, syscall.Errno) {
	for {
		m, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, from, 0, to, 0, uintptr(n), spliceMove|spliceNoBlock)
		if errno == syscall.EINTR {
			continue
		}
		return int(m), errno
	}
}
