// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

func lightPair(t testing.TB, network, addr string) (client, server net.Conn) {
	t.Helper()
	ln, err := (&ListenConfig{}).Listen(context.Background(), network, addr)
	require.NoError(t, err)
	defer ln.Close()
	client, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	server, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestListenIsNetConn(t *testing.T) {
	for _, name := range []string{"tcp", "unix", "tcp in the runtime's poller"} {
		t.Run(name, func(t *testing.T) {
			network, _, runtimes := strings.Cut(name, " ")
			if runtimes {
				withRuntime(t)
			}
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				addr := "127.0.0.1:0"
				if network == "unix" {
					addr = filepath.Join(t.TempDir(), "s")
				}
				c1, c2 = lightPair(t, network, addr)
				return c2, c1, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

func TestListenAddresses(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		client, server := lightPair(t, "tcp", addr)
		for range 2 { // looked up, then known
			require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
			require.Equal(t, client.RemoteAddr().String(), server.LocalAddr().String())
		}
		server.Close()
		require.NotNil(t, server.LocalAddr())
		require.ErrorIs(t, server.Close(), net.ErrClosed)
		_, err := server.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	}
	path := filepath.Join(t.TempDir(), "s")
	client, server := lightPair(t, "unix", path)
	require.Equal(t, path, server.LocalAddr().String())
	require.Equal(t, "unix", server.RemoteAddr().Network())
	require.NoFileExists(t, path)
	send(t, client, "x")
	wantRead(t, server, "x")
}

func TestListenCloseEndsAccept(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	time.AfterFunc(10*time.Millisecond, func() { ln.Close() })
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, ln.Close(), net.ErrClosed)
	again, err := net.Listen("tcp", ln.Addr().String())
	require.NoError(t, err, "the address is free")
	again.Close()
}

// TestListenCloseTwice: the call that comes second does not return before the
// first has closed the socket, which takes as long as somebody uses it.
func TestListenCloseTwice(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := ln.(*listener)
	used, release := make(chan struct{}), make(chan struct{})
	go l.raw.Control(func(uintptr) { close(used); <-release })
	<-used
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- ln.Close() }()
	for !l.closing.Load() {
		runtime.Gosched()
	}
	go func() { second <- ln.Close() }()
	time.Sleep(10 * time.Millisecond) // for it to be wrong
	require.Empty(t, second, "the socket is still open")
	close(release)
	require.NoError(t, <-first)
	require.ErrorIs(t, <-second, net.ErrClosed)
	again, err := net.Listen("tcp", ln.Addr().String())
	require.NoError(t, err, "the address is free")
	again.Close()
}

// TestListenHandOver gives a listener to what would be another process.
func TestListenHandOver(t *testing.T) {
	lc := &ListenConfig{}
	old, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := old.(interface{ File() (*os.File, error) }).File()
	require.NoError(t, err)
	ln, err := lc.FileListener(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, old.Addr().String(), ln.Addr().String())
	require.NoError(t, old.Close())

	s := &Server{Handler: echo}
	wait := serve(s, ln)
	c, err := net.Dial("tcp", old.Addr().String())
	require.NoError(t, err)
	wantEcho(t, c, "handed over")
	c.Close()
	require.NoError(t, s.Shutdown(t.Context()))
	require.ErrorIs(t, wait(), ErrServerClosed)
	_, err = lc.FileListener(os.Stdin)
	require.Error(t, err)
}

func TestListenReusePort(t *testing.T) {
	lc := &ListenConfig{ReusePort: true}
	a, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer a.Close()
	b, err := lc.Listen(t.Context(), "tcp", a.Addr().String())
	require.NoError(t, err)
	defer b.Close()
	_, err = (&ListenConfig{}).Listen(t.Context(), "tcp", a.Addr().String())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

// A connection is accepted when its client has said something, whoever came
// first, or has kept silent for long enough.
func TestListenDeferAccept(t *testing.T) {
	lc := &ListenConfig{DeferAccept: time.Millisecond}
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	silent, talker := dial(), dial()
	send(t, talker, "x")
	for _, c := range []net.Conn{talker, silent} {
		server, err := ln.Accept()
		require.NoError(t, err)
		defer server.Close()
		require.Equal(t, c.LocalAddr().String(), server.RemoteAddr().String())
	}

	path := filepath.Join(t.TempDir(), "s")
	u, err := lc.Listen(t.Context(), "unix", path)
	require.NoError(t, err, "not for Unix sockets")
	require.NoError(t, u.Close())
	require.Equal(t, 1, wholeSeconds(1))
	require.Equal(t, 2, wholeSeconds(time.Second+1))
	require.Equal(t, math.MaxInt32, wholeSeconds(math.MaxInt64))
}

func TestSocketOptions(t *testing.T) {
	get := func(c net.Conn, level, option int) (v int) {
		raw, err := c.(syscall.Conn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), level, option) }))
		require.NoError(t, err)
		return v
	}
	controlled := 0
	options := SocketOptions{
		KeepAlive:   net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Count: 4},
		UserTimeout: 7 * time.Second,
		Delay:       true,
		FastOpen:    true,
		Control:     func(network, address string, c syscall.RawConn) error { controlled++; return nil },
	}
	ln, err := (&ListenConfig{Socket: options}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	options.Source = netip.MustParseAddr("127.0.0.2")
	client, err := options.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	send(t, client, "x") // fast open connects now
	server, err := ln.Accept()
	require.NoError(t, err)
	defer server.Close()
	require.Equal(t, 2, controlled)
	for _, c := range []net.Conn{client, server} {
		require.Equal(t, 1, get(c, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE))
		require.Equal(t, 30, get(c, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE))
		require.Equal(t, 15, get(c, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL))
		require.Equal(t, 4, get(c, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT))
		require.Equal(t, 7000, get(c, syscall.IPPROTO_TCP, tcpUserTimeout))
		require.Equal(t, 0, get(c, syscall.IPPROTO_TCP, syscall.TCP_NODELAY))
	}
	require.Equal(t, "127.0.0.2", addrOf(server).String())

	client, server = lightPair(t, "tcp", "127.0.0.1:0")
	require.Equal(t, 1, get(server, syscall.IPPROTO_TCP, syscall.TCP_NODELAY))
	require.Equal(t, 1, get(server, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), "by default")
	require.NoError(t, server.(*sock).SetNoDelay(false))
	require.Equal(t, 0, get(server, syscall.IPPROTO_TCP, syscall.TCP_NODELAY))
	require.NoError(t, server.(*sock).SetLinger(0))
	server.Close()
	wantError(t, client, syscall.ECONNRESET)
}

// TestSocketMark needs a privilege that tests may not have.
func TestSocketMark(t *testing.T) {
	ln, err := (&ListenConfig{Socket: SocketOptions{Mark: 7}}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if errors.Is(err, syscall.EPERM) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer ln.Close()
	for _, o := range []SocketOptions{{Mark: 9}, {Interface: "lo"}} {
		c, err := o.DialContext(t.Context(), "tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		server, err := ln.Accept()
		require.NoError(t, err)
		defer server.Close()
		mark := func(c net.Conn) (v int) {
			raw, err := c.(syscall.Conn).SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK) }))
			require.NoError(t, err)
			return v
		}
		require.EqualValues(t, o.Mark, mark(c))
		require.Equal(t, 7, mark(server), "inherited")
	}
	_, err = (&SocketOptions{Interface: "none0"}).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.Error(t, err)
}

// TestDialFromSource: the port is left to connect, so that one port may serve
// towards many servers.
func TestDialFromSource(t *testing.T) {
	o := &SocketOptions{Source: netip.MustParseAddr("127.0.0.3")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := o.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		v, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindNoPort)
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}))
	require.Contains(t, c.LocalAddr().String(), "127.0.0.3:")
}

// TestListenForHTTP has an http.Server take the connections.
func TestListenForHTTP(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "from "+r.RemoteAddr) })}
	go s.Serve(ln)
	defer s.Close()
	resp, err := http.Get("http://" + ln.Addr().String())
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "from 127.0.0.1:")
	http.DefaultClient.CloseIdleConnections()
}
