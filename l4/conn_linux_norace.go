// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package l4

import (
	"syscall"
	"unsafe"
)

// sysRead, sysWrite and what is below are calls on non-blocking sockets,
// without the notice to the scheduler that syscall.Read gives: when a call
// with that notice takes longer than 20 us, as a write to loopback does, the
// runtime wakes another thread to take over the processor.
// The first two are in files of their own.

func sysSplice(from, to uintptr, n int) (int, syscall.Errno) {
	for {
		m, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, from, 0, to, 0, uintptr(n), spliceMove|spliceNoBlock)
		if errno == syscall.EINTR {
			continue
		}
		return int(m), errno
	}
}

func sysClose(fd int) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

func sysEpollCtl(ep, op, fd int, ev *syscall.EpollEvent) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(ep), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return errno
}

// sysEpollPoll is epoll_wait(2) that does not wait.
func sysEpollPoll(ep int, events []syscall.EpollEvent) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return int(n), errno
}
