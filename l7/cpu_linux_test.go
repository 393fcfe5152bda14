// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"syscall"
	"time"
	"unsafe"
)

// cpuTime returns what this process has worked so far, to the nanosecond: however
// busy the machine is with other things, it is the work that is measured.
func cpuTime() time.Duration {
	const processClock = 2 // CLOCK_PROCESS_CPUTIME_ID
	var t syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, processClock, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic(errno)
	}
	return time.Duration(t.Nano())
}
