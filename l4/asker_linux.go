// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// An asker waits until the network has been asked what is ready. The scheduler does so
// only when no goroutine is left to run. Code that makes many goroutines run at once, as a
// thousand clients that connect, say hello or leave do, would hold up all that becomes
// ready meanwhile until the last of them has run. It makes a few, and asks. It waits for an
// event that it has caused itself, of which it hears in no other way, and so after those
// that are ready. One goroutine at a time may use it.
type asker struct {
	event *os.File // an eventfd; nil until needed
	raw   syscall.RawConn
}

// ready makes the event. It cannot be made for want of a descriptor, at times.
func (a *asker) ready() bool {
	if a.event != nil {
		return true
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return false
	}
	event := os.NewFile(fd, "eventfd")
	raw, err := event.SyscallConn()
	if err != nil || event.SetDeadline(time.Time{}) != nil { // the network is not asked about it
		event.Close()
		return false
	}
	a.event, a.raw = event, raw
	return true
}

// ask returns after the network has been asked, at once if that cannot be known.
func (a *asker) ask() {
	if !a.ready() {
		return
	}
	asked := false
	one := uint64(1)
	_ = a.raw.Read(func(fd uintptr) bool {
		if asked {
			return true
		}
		asked = true
		_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		return errno != 0
	})
}

// close gives the descriptor back.
func (a *asker) close() {
	if a.event != nil {
		a.event.Close()
	}
}
