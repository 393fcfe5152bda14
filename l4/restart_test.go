// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPassedSockets reads the two environments that tell of sockets. One that was meant
// for another process tells nothing.
func TestPassedSockets(t *testing.T) {
	for _, tc := range []struct {
		env  map[string]string
		want passed
	}{
		{nil, passed{}},
		{map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, passed{n: 2, names: []string{"a", "b"}}},
		{map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "1"}, passed{n: 1, names: []string{""}}},
		{map[string]string{"LISTEN_PID": "8", "LISTEN_FDS": "2"}, passed{}},
		{map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "-2"}, passed{names: []string{""}}},
		{map[string]string{"PENSTOCK_PARENT": "3,2"}, passed{n: 2, parent: true}},
		{map[string]string{"PENSTOCK_PARENT": "3,0"}, passed{parent: true}},
		{map[string]string{"PENSTOCK_PARENT": "4,2"}, passed{}},
		{map[string]string{"PENSTOCK_PARENT": "3"}, passed{}},
	} {
		got := passedBy(func(k string) string { return tc.env[k] }, 7, 3)
		require.Equal(t, tc.want, got, "%v", tc.env)
	}
}

func TestPassedAddress(t *testing.T) {
	tcp := func(s string) net.Addr { a, err := net.ResolveTCPAddr("tcp", s); require.NoError(t, err); return a }
	udp := func(s string) net.Addr { a, err := net.ResolveUDPAddr("udp", s); require.NoError(t, err); return a }
	unix := func(s string) net.Addr { return &net.UnixAddr{Name: s, Net: "unix"} }
	for _, tc := range []struct {
		network   string
		want, has net.Addr
		same      bool
	}{
		{"tcp", tcp("127.0.0.1:80"), tcp("127.0.0.1:80"), true},
		{"tcp", tcp("127.0.0.1:80"), tcp("127.0.0.1:81"), false},
		{"tcp", tcp("127.0.0.1:0"), tcp("127.0.0.1:81"), true},
		{"tcp", tcp("127.0.0.1:80"), tcp("127.0.0.2:80"), false},
		{"tcp", tcp("127.0.0.1:80"), tcp("[::]:80"), false},
		{"tcp", tcp(":80"), tcp("[::]:80"), true},
		{"tcp", tcp(":80"), tcp("0.0.0.0:80"), true},
		{"tcp", tcp("0.0.0.0:80"), tcp("[::]:80"), true},
		{"tcp4", tcp(":80"), tcp("[::]:80"), false},
		{"tcp6", tcp(":80"), tcp("0.0.0.0:80"), false},
		{"tcp6", tcp(":80"), tcp("[::]:80"), true},
		{"tcp", tcp(":80"), tcp("127.0.0.1:80"), false},
		{"tcp", tcp(":80"), unix("/s"), false},
		{"udp", udp("127.0.0.1:53"), udp("127.0.0.1:53"), true},
		{"udp", udp(":53"), udp("[::]:53"), true},
		{"udp4", udp(":53"), udp("[::]:53"), false},
		{"udp", udp("127.0.0.1:53"), tcp("127.0.0.1:53"), false},
		{"tcp", tcp("127.0.0.1:53"), udp("127.0.0.1:53"), false},
		{"unix", unix("/s"), unix("/s"), true},
		{"unix", unix("/s"), unix("/t"), false},
		{"unix", unix("/s"), tcp(":80"), false},
	} {
		require.Equal(t, tc.same, sameAddress(tc.network, tc.want, tc.has), "%s: want %v, has %v", tc.network, tc.want, tc.has)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, tc := range []struct {
		us, pid string
		want    time.Duration
	}{
		{"", "", 0}, {"4000000", "", 2 * time.Second}, {"4000000", "7", 2 * time.Second}, {"4000000", "8", 0}, {"x", "", 0}, {"-1", "", 0}, {"9223372036854775807", "", 0},
	} {
		env := map[string]string{"WATCHDOG_USEC": tc.us, "WATCHDOG_PID": tc.pid}
		require.Equal(t, tc.want, watchdogEvery(func(k string) string { return env[k] }, 7), "%v", tc)
	}
}

// TestNotify has a datagram socket in the place of systemd's.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer c.Close()
	r := new(Restart)
	require.NoError(t, r.Ready(), "there is nobody to tell")
	t.Setenv("NOTIFY_SOCKET", path)
	heard := func() string {
		p := make([]byte, 100)
		n, err := c.Read(p)
		require.NoError(t, err)
		return string(p[:n])
	}
	require.NoError(t, r.Ready())
	require.Regexp(t, `^READY=1\nMAINPID=\d+$`, heard())

	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, cancel := context.WithCancel(t.Context())
	done, calls := make(chan error, 1), 0
	go func() {
		done <- r.Watchdog(ctx, func(context.Context) error {
			if calls++; calls == 1 {
				return errors.New("not yet")
			}
			return nil
		})
	}()
	require.Equal(t, "WATCHDOG=1", heard())
	require.Equal(t, "WATCHDOG=1", heard())
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.GreaterOrEqual(t, calls, 3)
	require.NoError(t, c.Close())
	require.NoError(t, os.RemoveAll(path))
	require.Error(t, r.Notify("STATUS=deaf"))
}

// TestWatchdogHeldUp: a service that does not answer is not said to be alive.
func TestWatchdogHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(Restart)
		start := time.Now()
		require.False(t, r.alive(t.Context(), time.Second, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }))
		require.Equal(t, time.Second, time.Since(start))
		require.False(t, r.alive(t.Context(), time.Second, func(context.Context) error { panic("of the host's") }))
		require.True(t, r.alive(t.Context(), time.Second, nil))
	})
}
