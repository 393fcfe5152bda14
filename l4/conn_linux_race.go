// SPDX-License-Identifier: Apache-2.0

//go:build linux && race

package l4

import "syscall"

// sysRead and sysWrite are the calls that the race detector knows.

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

func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err == syscall.EINTR {
			continue
		}
		errno, _ := err.(syscall.Errno)
		return n, errno
	}
}
