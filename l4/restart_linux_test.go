// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRestartChild is what the tests below start.
func TestRestartChild(t *testing.T) {
	what, addr, _ := strings.Cut(os.Getenv("RESTART_CHILD"), " ")
	if what == "" {
		t.Skip("it is a part of others")
	}
	r := new(Restart)
	ln, err := r.Listen(t.Context(), nil, "tcp", addr)
	require.NoError(t, err)
	require.Empty(t, os.Getenv(envParent)+os.Getenv(envPID)+os.Getenv(envFDs))
	switch what {
	case "dies":
		os.Exit(3)
	case "hangs":
		select {}
	}
	u, err := r.Listen(t.Context(), nil, "unix", os.Getenv("RESTART_UNIX"))
	require.NoError(t, err)
	defer u.Close()
	require.NoError(t, r.Ready())
	for _, ln := range []net.Listener{ln, u} {
		c, err := ln.Accept()
		require.NoError(t, err)
		fmt.Fprintf(c, "child\n")
		c.Close()
	}
}

func says(t *testing.T, network, addr string) string {
	c, err := net.Dial(network, addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(b)
}

// TestHandOver starts this test's program again, which ends twice before it is ready.
func TestHandOver(t *testing.T) {
	r := &Restart{Args: []string{os.Args[0], "-test.run=^TestRestartChild$"}}
	ln, err := r.Listen(t.Context(), nil, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "s")
	u, err := r.Listen(t.Context(), nil, "unix", path)
	require.NoError(t, err)
	gone, err := r.Listen(t.Context(), nil, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	t.Setenv("RESTART_UNIX", path)
	greet := HandlerFunc(func(_ context.Context, c net.Conn) error { fmt.Fprintf(c, "parent\n"); return c.Close() })
	s := &Server{Handler: greet}
	wait, waitUnix := serve(s, ln), serve(s, u)

	child := func(what string) { t.Setenv("RESTART_CHILD", what+" "+ln.Addr().String()) }
	child("dies")
	require.ErrorContains(t, r.HandOver(t.Context()), "exit status 3")
	child("hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.HandOver(ctx), context.DeadlineExceeded)
	require.Equal(t, "parent\n", says(t, "tcp", ln.Addr().String()), "it serves on")

	child("serves")
	require.NoError(t, r.HandOver(t.Context()))
	require.NoError(t, ln.(*listener).raw.Control(func(fd uintptr) {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0)
		require.Zero(t, errno)
		require.NotZero(t, flags&syscall.O_NONBLOCK, "Accept must not block a thread")
	}))
	require.ErrorIs(t, r.HandOver(t.Context()), ErrHandedOver)
	require.Equal(t, "child\n", says(t, "tcp", ln.Addr().String()))
	require.NoError(t, s.Shutdown(t.Context()))
	require.ErrorIs(t, wait(), ErrServerClosed)
	require.ErrorIs(t, waitUnix(), ErrServerClosed)
	require.Equal(t, "child\n", says(t, "unix", path), "the path is the next program's")
}

// TestHandOverStopsAccept: nothing is accepted here any more, not even by an Accept
// that waits already, and Accept does not fail before Close.
func TestHandOverStopsAccept(t *testing.T) {
	for _, waits := range []bool{true, false} {
		ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		accepted := make(chan error, 1)
		l := ln.(*listener)
		accept := func() { _, err := ln.Accept(); accepted <- err }
		if waits {
			go accept()
			time.Sleep(10 * time.Millisecond) // for it to wait
		}
		l.handOff()
		if !waits {
			go accept()
		}
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err, "others listen on")
		time.Sleep(10 * time.Millisecond) // for it to be wrong
		require.Empty(t, accepted)
		require.NoError(t, ln.Close())
		require.ErrorIs(t, <-accepted, net.ErrClosed)
		c.Close()
	}
}
