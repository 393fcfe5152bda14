// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package health

import "os/exec"

func group(*exec.Cmd) {}

// killAll kills cmd alone: groups of processes are a thing of Unix.
func killAll(cmd *exec.Cmd) error { return cmd.Process.Kill() }
