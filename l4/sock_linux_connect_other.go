// SPDX-License-Identifier: Apache-2.0

//go:build linux && (race || 386 || s390x)

package l4

import "syscall"

// sysConnect is connect(2), which has no number of its own on all
// architectures.
func sysConnect(fd int, to syscall.Sockaddr) error { return syscall.Connect(fd, to) }
