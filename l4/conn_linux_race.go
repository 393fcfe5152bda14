// SPDX-License-Identifier: Apache-2.0

//go:build linux && race

package l4

import "syscall"

// sysRead, sysWrite and what is below are calls that the race detector knows.
// It does without the flags of a write.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err == syscall.EINTR {
			continue
		}
		errno, _ := err.(syscall.Errno)
		return n, errno
	}
}

func sysWrite(fd uintptr, p []byte, _ uintptr) (int, syscall.Errno) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err == syscall.EINTR {
			continue
		}
		errno, _ := err.(syscall.Errno)
		return n, errno
	}
}

func sysSplice(from, to uintptr, n int) (int, syscall.Errno) {
	for {
		m, _, errno := syscall.Syscall6(syscall.SYS_SPLICE, from, 0, to, 0, uintptr(n), spliceMove|spliceNoBlock)
		if errno == syscall.EINTR {
			continue
		}
		return int(m), errno
	}
}

func sysClose(fd int) { syscall.Close(fd) }

func sysEpollCtl(ep, op, fd int, ev *syscall.EpollEvent) syscall.Errno {
	errno, _ := syscall.EpollCtl(ep, op, fd, ev).(syscall.Errno)
	return errno
}

func sysEpollPoll(ep int, events []syscall.EpollEvent) (int, syscall.Errno) {
	n, err := syscall.EpollWait(ep, events, 0)
	errno, _ := err.(syscall.Errno)
	return n, errno
}
