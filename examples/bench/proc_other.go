// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

var errLinux = errors.New("bench needs Linux: it reads /proc")

func processors() ([]int, error)     { return nil, errLinux }
func startOn(*exec.Cmd, []int) error { return errLinux }
func cpuTime(int) time.Duration      { return 0 }
func memory(int) int64               { return 0 }
func descriptors() int               { return 0 }
func machine() Machine               { return Machine{} }
