// SPDX-License-Identifier: Apache-2.0

//go:build unix

package health

import (
	"os/exec"
	"syscall"
)

// group lets cmd begin a group of processes.
func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killAll kills the group of cmd.
func killAll(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
