// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// tick is the unit of /proc/PID/stat: the kernel shows times to programs in hundredths
// of a second on every platform (USER_HZ).
const tick = 10 * time.Millisecond

// A mask says on which processors a thread may run, as sched_setaffinity(2) takes it.
type mask [16]uint64

// processors returns the numbers of those that this program may use.
func processors() ([]int, error) {
	var m mask
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(m), uintptr(unsafe.Pointer(&m))); errno != 0 {
		return nil, fmt.Errorf("sched_getaffinity: %w", errno)
	}
	var all []int
	for i := range len(m) * 64 {
		if m[i/64]>>(i%64)&1 == 1 {
			all = append(all, i)
		}
	}
	return all, nil
}

func (m *mask) set() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*m), uintptr(unsafe.Pointer(m))); errno != 0 {
		return fmt.Errorf("sched_setaffinity: %w", errno)
	}
	return nil
}

// startOn starts cmd on the given processors. A process begins with the processors of
// the thread that starts it, so no part of it ever runs elsewhere.
func startOn(cmd *exec.Cmd, cpus []int) error {
	all, err := processors()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := maskOf(cpus).set(); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), maskOf(all).set())
}

func maskOf(cpus []int) *mask {
	var m mask
	for _, c := range cpus {
		m[c/64] |= 1 << (c % 64)
	}
	return &m
}

// tree returns the process and all that descend from it.
func tree(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists {
			text, _ := os.ReadFile(list) // a thread may have ended
			for _, f := range strings.Fields(string(text)) {
				if child, err := strconv.Atoi(f); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// cpuTime returns the time that the processes have run, in user mode and in the kernel.
func cpuTime(pid int) (sum time.Duration) {
	for _, p := range tree(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		sum += parseStat(text)
	}
	return sum
}

// parseStat reads /proc/PID/stat. The name of the program, in parentheses, may hold
// anything; user and system time are the 12th and 13th field after it (proc(5)).
func parseStat(text []byte) time.Duration {
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(string(f[11]), 10, 64)
	system, _ := strconv.ParseInt(string(f[12]), 10, 64)
	return time.Duration(user+system) * tick
}

// memory returns the proportional set size of the processes in bytes: what several share
// counts in parts.
func memory(pid int) (sum int64) {
	for _, p := range tree(pid) {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			continue
		}
		sum += parsePSS(f)
		f.Close()
	}
	return sum
}

func parsePSS(r io.Reader) int64 {
	for s := bufio.NewScanner(r); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// descriptors returns how many a process may open.
func descriptors() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}

// machine describes where this program runs.
func machine() Machine {
	m := Machine{Processors: runtime.NumCPU()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = after(string(text), "model name")
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(text)), "-")
	}
	return m
}

// after returns the value of the first line "key : value".
func after(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
