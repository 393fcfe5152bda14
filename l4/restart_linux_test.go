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

	"github.com/penstock-lb/penstock/balance"
)

// TestRestartChild is what the tests below start.
func TestRestartChild(t *testing.T) {
	what, addr, _ := strings.Cut(os.Getenv("RESTART_CHILD"), " ")
	if what == "" {
		t.Skip("it is a part of others")
	}
	parent := os.Getppid()
	go func() {
		for range time.Tick(time.Second) {
			if os.Getppid() != parent { // its test has failed, and go test waits for our output
				os.Exit(4)
			}
		}
	}()
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
	pc, err := r.ListenPacket(t.Context(), "udp", os.Getenv("RESTART_UDP"))
	require.NoError(t, err)
	defer pc.Close()
	require.NoError(t, r.Ready())
	go func() {
		b := make([]byte, 10)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte("child"), from)
		}
	}()
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

// wantNonblock checks that Accept and reads block no thread, which no deadline would end.
func wantNonblock(t *testing.T, raw syscall.RawConn) {
	t.Helper()
	require.NoError(t, raw.Control(func(fd uintptr) {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0)
		require.Zero(t, errno)
		require.NotZero(t, flags&syscall.O_NONBLOCK)
	}))
}

// TestHandOver starts this test's program again, which ends twice before it is ready.
func TestHandOver(t *testing.T) {
	r := &Restart{Args: []string{os.Args[0], "-test.run=^TestRestartChild$"}}
	ln, err := r.Listen(t.Context(), nil, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "s")
	u, err := r.Listen(t.Context(), nil, "unix", path)
	require.NoError(t, err)
	pc, err := r.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Setenv("RESTART_UDP", pc.LocalAddr().String())
	heard := make(chan string, 10)
	over := make(chan error)
	go func() {
		b := make([]byte, 10)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				over <- err
				return
			}
			heard <- string(b[:n])
			_, _ = pc.WriteTo([]byte("parent"), from)
		}
	}()
	client, err := net.Dial("udp", pc.LocalAddr().String())
	require.NoError(t, err)
	defer client.Close()
	asks := func(what string) string {
		_, err := io.WriteString(client, what)
		require.NoError(t, err)
		b := make([]byte, 10)
		require.NoError(t, client.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := client.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
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
	raw, err := pc.(*sharedPacketConn).SyscallConn()
	require.NoError(t, err)
	wantNonblock(t, raw)
	child("hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.HandOver(ctx), context.DeadlineExceeded)
	require.Equal(t, "parent\n", says(t, "tcp", ln.Addr().String()), "it serves on")
	require.Equal(t, "parent", asks("first"))
	require.Equal(t, "first", <-heard)

	child("serves")
	require.NoError(t, r.HandOver(t.Context()))
	wantNonblock(t, ln.(*listener).raw)
	require.ErrorIs(t, r.HandOver(t.Context()), ErrHandedOver)
	for range 100 {
		require.Equal(t, "child", asks("more"))
	}
	require.Empty(t, heard, "nothing is read here any more")
	_, err = pc.WriteTo([]byte("late"), client.LocalAddr())
	require.NoError(t, err)
	b := make([]byte, 10)
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "late", string(b[:n]), "what was read here is answered here")
	require.Empty(t, over, "reads wait")
	require.NoError(t, pc.Close())
	require.ErrorIs(t, <-over, net.ErrClosed)
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

// TestFlowsGoOnAfterHandOff: the server of a flow that began here is heard here, though
// the next program reads what clients send.
func TestFlowsGoOnAfterHandOff(t *testing.T) {
	origin, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	pool := &balance.Pool{}
	require.NoError(t, pool.Set(balance.Endpoint{Addr: origin.LocalAddr().String()}))
	r := new(Restart)
	pc, err := r.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &UDPProxy{Pool: pool}
	served := make(chan error, 1)
	go func() { served <- p.Serve(pc) }()
	client, err := net.Dial("udp", pc.LocalAddr().String())
	require.NoError(t, err)
	defer client.Close()
	_, err = io.WriteString(client, "hello")
	require.NoError(t, err)
	b := make([]byte, 10)
	require.NoError(t, origin.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, flow, err := origin.ReadFrom(b)
	require.NoError(t, err)
	pc.(*sharedPacketConn).handOff()
	for range 5 {
		_, err = io.WriteString(client, "next")
		require.NoError(t, err)
	}
	_, err = origin.WriteTo([]byte("late"), flow)
	require.NoError(t, err)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "late", string(b[:n]))
	require.NoError(t, origin.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	forwarded := 0
	for ; err == nil; forwarded++ {
		_, _, err = origin.ReadFrom(b)
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, forwarded-1)
	require.NoError(t, p.Close())
	require.ErrorIs(t, <-served, ErrServerClosed)
}
