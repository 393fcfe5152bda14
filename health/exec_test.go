// SPDX-License-Identifier: Apache-2.0

//go:build unix

package health_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// sh returns a probe that runs a script; $1 is the address.
func sh(script string) health.Exec {
	return health.Exec{Path: "sh", Args: []string{"-c", script, "sh", "{addr}"}}
}

func TestExec(t *testing.T) {
	with := func(x health.Exec, set func(*health.Exec)) health.Exec { set(&x); return x }
	for _, tt := range []struct {
		name  string
		probe health.Exec
		want  string
	}{
		{"passes", sh("exit 0"), "ok"},
		{"fails in silence", sh("exit 3"), "bad status / sh: exit status 3"},
		{"says why", sh("echo '  replica is behind '; echo more; exit 1"), "bad status / sh: replica is behind"},
		{"says why on stderr", sh("echo 'no such table' >&2; exit 1"), "bad status / sh: no such table"},
		{"is killed", sh("kill -9 $$"), "bad status / sh: signal: killed"},
		{"asks for a stop", with(sh("exit 4"), func(x *health.Exec) { x.Stop = 4 }), "stopping / sh: exit status 4"},
		{"is told whom it asks", sh(`[ "$1 $PENSTOCK_SERVER_NAME $PENSTOCK_SERVER_ADDR $PENSTOCK_SERVER_HOST $PENSTOCK_SERVER_PORT" = "[::1]:80 n [::1]:80 ::1 80" ] || exit 1`), "ok"},
		{"its environment", with(sh(`echo "$A,$HOME,$PENSTOCK_SERVER_PORT"; exit 1`), func(x *health.Exec) { x.Env = []string{"A=b"} }), "bad status / sh: b,,80"},
		{"its folder", with(sh(`pwd; exit 1`), func(x *health.Exec) { x.Dir = "/" }), "bad status / sh: /"},
		{"takes too long", with(sh("sleep 30"), func(x *health.Exec) { x.Timeout = 100 * time.Millisecond }), "timeout / sh: no answer within 100ms"},
		{"writes without end", with(sh("while :; do echo y; done"), func(x *health.Exec) { x.Timeout = 100 * time.Millisecond }), "timeout / sh: no answer within 100ms"},
		{"writes much", sh("i=0; while [ $i -lt 3000 ]; do echo yyyyyyyyyyyyyyyyyyyy; i=$((i+1)); done; exit 1"), "bad status / sh: yyyyyyyyyyyyyyyyyyyy"},
		{"does not exist", health.Exec{Path: "/nonexistent/probe"}, "internal error / probe: fork/exec /nonexistent/probe: no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			require.Equal(t, tt.want, verdict(tt.probe.Probe(t.Context(), balance.Endpoint{Name: "n", Addr: "[::1]:80"})))
			require.Less(t, time.Since(began), 20*time.Second)
		})
	}
}

// TestExecLeavesNothingBehind has commands whose children outlive them and hold their
// output.
func TestExecLeavesNothingBehind(t *testing.T) {
	for name, script := range map[string]string{"ends": "sleep 60 & echo $! > %s", "hangs": "sleep 60 & echo $! > %s; wait"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			x := sh(fmt.Sprintf(script, file))
			x.Timeout = 30 * time.Second
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if name == "hangs" { // until it has said what it has started
				go func() {
					for b := []byte(nil); !bytes.HasSuffix(b, []byte("\n")) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
						b, _ = os.ReadFile(file)
					}
					cancel()
				}()
			}
			err := x.Probe(ctx, balance.Endpoint{Addr: "a:1"})
			require.Equal(t, name == "ends", err == nil, "%v", err)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var pid int
			_, err = fmt.Sscan(strings.TrimSpace(string(text)), &pid)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return !alive(pid) }, 10*time.Second, 10*time.Millisecond)
		})
	}
}

// alive reports whether a process runs; one that has ended and was not waited for does not.
func alive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, rest, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(rest, "Z")
	}
	return syscall.Kill(pid, 0) == nil
}

func TestExecCheck(t *testing.T) {
	require.NoError(t, sh("exit 0").Check())
	for field, x := range map[string]health.Exec{
		"Exec.Path": {Path: "/nonexistent/probe"},
		"Exec.Stop": {Path: "sh", Stop: 256},
	} {
		var bad *penstock.ConfigError
		require.ErrorAs(t, x.Check(), &bad)
		require.Equal(t, field, bad.Field)
	}
	require.Error(t, health.Exec{}.Check())
}
