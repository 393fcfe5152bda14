// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// sockets returns how many sockets this process has open.
func sockets(t *testing.T) (n int) {
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// silent listens with a queue that is full: the kernel answers nobody until
// somebody accepts.
func silent(t *testing.T) (ln net.Listener, addr string) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	ln, err = net.FileListener(f)
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return ln, ln.Addr().String()
}

// ask probes addr for at most d.
func ask(t *testing.T, addr string, d time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return TCP{}.Probe(ctx, balance.Endpoint{Addr: addr})
}

// TestConnectIsNotSeen probes a server, whose process must not be woken by it.
func TestConnectIsNotSeen(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		listen := host
		if strings.HasPrefix(host, "::ffff:") {
			listen = "127.0.0.1"
		}
		ln, err := net.Listen("tcp", net.JoinHostPort(listen, "0"))
		if err != nil {
			t.Logf("no %s here: %v", host, err)
			continue
		}
		defer ln.Close()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		addr := net.JoinHostPort(host, port)
		var s idleSockets
		for range 3 {
			require.NoError(t, ask(t, addr, time.Minute))
			_, ok, err := TCP{}.start(balance.Endpoint{Addr: addr}, &s)
			require.True(t, ok)
			require.NoError(t, err)
		}
		s.close()
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		seen, err := ln.Accept()
		require.NoError(t, err)
		require.Equal(t, c.LocalAddr().String(), seen.RemoteAddr().String(), "the first that %s sees is no probe", host)
		c.Close()
		seen.Close()
		ln.Close()
		err = ask(t, addr, time.Minute)
		require.Equal(t, CodeRefused, CodeOf(err))
		require.EqualError(t, err, "connect: connection refused")
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, port, fmt.Sprint(op.Addr.(*net.TCPAddr).Port))
	}
}

// TestConnectLongWay has addresses that package net has to look at.
func TestConnectLongWay(t *testing.T) {
	for _, addr := range []string{"localhost:80", "fe80::1%lo:80", "[fe80::1%lo]:80", "127.0.0.1:http", "0.0.0.0:80", "127.0.0.1:0", "unix:/run/a", ""} {
		_, ok, _ := TCP{}.start(balance.Endpoint{Addr: addr}, new(idleSockets))
		require.False(t, ok, addr)
	}
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }
	for _, d := range []Connect{{Dial: dial}, {Proxy: ProxyV2}} {
		_, ok, _ := TCP{Connect: d}.start(balance.Endpoint{Addr: "127.0.0.1:80"}, new(idleSockets))
		require.False(t, ok)
	}
}

// TestConnectWaits has a server that is slow to say that it accepts.
func TestConnectWaits(t *testing.T) {
	ln, addr := silent(t)
	err := ask(t, addr, 200*time.Millisecond)
	require.Equal(t, CodeTimeout, CodeOf(err))
	require.EqualError(t, err, "connect: no answer within 200ms")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, CodeTimeout, CodeOf(TCP{}.Probe(ctx, balance.Endpoint{Addr: addr})))
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin := time.Now()
	require.EqualError(t, TCP{}.Probe(ctx, balance.Endpoint{Addr: addr}), "connect: no answer")
	require.Less(t, time.Since(begin), 30*time.Second, "it ends with its context")

	conn, done, ok, err := beginConnect(addr, new(idleSockets))
	require.True(t, ok)
	require.False(t, done, "nobody has answered")
	require.NoError(t, err)
	c, err := ln.Accept() // room for one more, which the kernel says to the next SYN
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, conn.wait(t.Context()))
	require.Error(t, syscall.Close(conn.fd), "it is closed")
}

// TestConnectItself connects a socket to itself, as the kernel may do if nobody
// listens at a port.
func TestConnectItself(t *testing.T) {
	for family, to := range map[int]syscall.Sockaddr{
		syscall.AF_INET:  &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
		syscall.AF_INET6: &syscall.SockaddrInet6{Addr: netip.IPv6Loopback().As16()},
	} {
		fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer syscall.Close(fd)
		if err := syscall.Bind(fd, to); err != nil {
			t.Logf("no family %d here: %v", family, err)
			continue
		}
		own, err := syscall.Getsockname(fd)
		require.NoError(t, err)
		require.NoError(t, syscall.Connect(fd, own))
		c := connecting{fd: fd, to: own}
		require.Equal(t, "connect: connection refused", dialError(t.Context(), c.end(nil)).Error())
	}
}

// TestRunLeavesNothing cancels Run while some servers are well, some refuse and some
// are silent.
func TestRunLeavesNothing(t *testing.T) {
	_, quiet := silent(t)
	good, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer good.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone.Close()
	p := &balance.Pool{}
	require.NoError(t, p.Set(
		balance.Endpoint{Addr: good.Addr().String()}, balance.Endpoint{Addr: gone.Addr().String()}, balance.Endpoint{Addr: quiet},
		balance.Endpoint{Name: "the long way", Addr: "localhost" + good.Addr().String()[len("127.0.0.1"):]},
	))
	before, goroutines := sockets(t), runtime.NumGoroutine()
	for _, probe := range []Probe{TCP{}, HTTP{}, Redis{}, GRPC{}, All{TCP{}, SMTP{}}, Any{TCP{}, MySQL{}}} {
		ctx, cancel := context.WithCancel(t.Context())
		var results atomic.Int64
		c := &Checker{
			Pools: []*balance.Pool{p}, Probe: probe, Interval: 10 * time.Millisecond, Timeout: time.Minute, Spread: -1, Logger: slog.New(slog.DiscardHandler),
			OnResult: func(Result) {
				if results.Add(1) == 20 {
					cancel()
				}
			},
		}
		require.ErrorIs(t, c.Run(ctx), context.Canceled, "%T", probe)
		// What a probe of package net/http used ends a moment after it.
		require.Eventually(t, func() bool { return sockets(t) == before && runtime.NumGoroutine() <= goroutines+1 }, // one asks
			30*time.Second, time.Millisecond, "%T leaves something", probe)
	}
}
