// SPDX-License-Identifier: Apache-2.0

//go:build linux && (race || 386 || s390x)

package health

import "syscall"

// The race detector wants the calls that it knows; on these systems connect(2)
// has another form.
func sysConnect(fd int, to syscall.Sockaddr) error { return syscall.Connect(fd, to) }

func sysClose(fd int) { syscall.Close(fd) }

func sysDisconnect(int) bool { return false }
