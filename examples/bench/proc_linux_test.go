// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseProc(t *testing.T) {
	require.Equal(t, 1230*time.Millisecond, parseStat([]byte("7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 100 23 0 0 20 0 1 0 99 1 1")))
	require.Zero(t, parseStat([]byte("7 (cut")))
	require.Zero(t, parseStat(nil))
	require.Equal(t, int64(12<<10), parsePSS(strings.NewReader("00400000-7ffe [rollup]\nRss:      20 kB\nPss:      12 kB\nPss_Dirty: 8 kB\n")))
	require.Zero(t, parsePSS(strings.NewReader("")))
	require.Equal(t, "Example 9000", after("processor\t: 0\nmodel name\t: Example 9000\n", "model name"))
	require.Empty(t, after("none", "model name"))
}

// TestStartOn starts a process on one processor, with a child of its own.
func TestStartOn(t *testing.T) {
	all, err := processors()
	require.NoError(t, err)
	last := all[len(all)-1:]
	cmd := exec.Command("sh", "-c", "exec 3<&0; sh -c 'grep Cpus_allowed_list /proc/self/status; read x <&3' & wait") // & takes the input away
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, startOn(cmd, last))
	text := make([]byte, 100)
	n, err := out.Read(text)
	require.NoError(t, err)
	require.Equal(t, []string{"Cpus_allowed_list:", strconv.Itoa(last[0])}, strings.Fields(string(text[:n])))
	require.Positive(t, memory(cmd.Process.Pid))
	require.GreaterOrEqual(t, len(tree(cmd.Process.Pid)), 2, "with its child")
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	after, err := processors()
	require.NoError(t, err)
	require.Equal(t, all, after, "this thread has its processors again")
	require.GreaterOrEqual(t, cpuTime(os.Getpid()), time.Duration(0))
	require.Positive(t, descriptors())
	require.NotEmpty(t, machine().Kernel)
}
