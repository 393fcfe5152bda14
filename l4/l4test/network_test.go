// SPDX-License-Identifier: Apache-2.0

package l4test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

func TestConnIsNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		n := NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = n.DialContext(context.Background(), "tcp", "10.0.0.1:80")
		if err != nil {
			return nil, nil, nil, err
		}
		c2, err = ln.Accept()
		return c1, c2, func() { c1.Close(); c2.Close(); ln.Close() }, err
	})
}

// connect listens, dials and accepts.
func connect(t *testing.T, n *Network) (client, server *Conn) {
	t.Helper()
	ln, err := n.Listen("tcp", "10.0.0.1:0")
	require.NoError(t, err)
	c, err := n.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	s, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); s.Close(); ln.Close() })
	return c.(*Conn), s.(*Conn)
}

func bubble(t *testing.T, f func(t *testing.T, n *Network)) {
	synctest.Test(t, func(t *testing.T) { f(t, NewNetwork()) })
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	require.NoError(t, err)
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	p := make([]byte, 100)
	n, err := c.Read(p)
	require.NoError(t, err)
	require.Equal(t, want, string(p[:n]))
}

func wantError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.ErrorIs(t, err, want)
}

func TestHalfClose(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		c, s := connect(t, n)
		send(t, c, "question")
		require.NoError(t, c.CloseWrite())
		wantRead(t, s, "question")
		wantError(t, s, io.EOF)
		_, err := c.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
		send(t, s, "answer")
		require.NoError(t, s.Close())
		wantRead(t, c, "answer")
		wantError(t, c, io.EOF)
		wantError(t, s, net.ErrClosed)
		require.ErrorIs(t, s.Close(), net.ErrClosed)
	})
}

func TestReset(t *testing.T) {
	cases := map[string]func(c, s *Conn){
		"Reset":             func(c, s *Conn) { s.Reset() },
		"unread at Close":   func(c, s *Conn) { c.Write([]byte("unread")); s.Close() },
		"SetLinger(0)":      func(c, s *Conn) { s.SetLinger(0); s.Close() },
		"peer resets":       func(c, s *Conn) { s.Peer().Reset() },
		"cut by the client": func(c, s *Conn) { c.CutAfter(0); s.Read(make([]byte, 1)) },
	}
	for name, reset := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *Network) {
				c, s := connect(t, n)
				send(t, s, "arrived")
				s.SetLatency(time.Second)
				send(t, s, "on its way")
				reset(c, s)
				wantRead(t, c, "arrived")
				wantError(t, c, syscall.ECONNRESET)
				_, err := c.Write([]byte("x"))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			})
		})
	}
}

func TestWriteToClosed(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		c, s := connect(t, n)
		s.Close()
		_, err := c.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		wantError(t, c, io.EOF)
	})
}

func TestLatency(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		c, s := connect(t, n)
		start := time.Now()
		c.SetLatency(100 * time.Millisecond)
		send(t, c, "a")
		time.Sleep(30 * time.Millisecond)
		send(t, c, "b")
		c.SetLatency(0)
		send(t, c, "c") // does not overtake
		c.Close()
		wantRead(t, s, "a")
		require.Equal(t, 100*time.Millisecond, time.Since(start))
		wantRead(t, s, "bc")
		require.Equal(t, 130*time.Millisecond, time.Since(start))
		wantError(t, s, io.EOF)
	})
}

func TestStall(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		c, s := connect(t, n)
		send(t, c, "before ")
		c.Stall()
		send(t, c, "during")
		c.CloseWrite()
		s.SetReadDeadline(time.Now().Add(time.Hour))
		wantError(t, s, os.ErrDeadlineExceeded)
		s.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Minute, c.Resume)
		wantRead(t, s, "before during")
		wantError(t, s, io.EOF)
	})
}

func TestCutAfter(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		c, s := connect(t, n)
		c.CutAfter(5)
		send(t, c, "hello, world")
		wantRead(t, s, "hello")
		wantError(t, s, syscall.ECONNRESET)
		wantError(t, c, syscall.ECONNRESET)
	})
}

func TestBackPressure(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		c, s := connect(t, n)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		m, err := c.Write(make([]byte, 2*BufferBytes))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, BufferBytes, m)
		c.SetWriteDeadline(time.Time{})
		go func() { time.Sleep(time.Minute); io.Copy(io.Discard, s) }()
		_, err = c.Write(make([]byte, 10*BufferBytes))
		require.NoError(t, err)
	})
}

func TestDialErrors(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		dial := func(network, addr string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := n.DialContext(ctx, network, addr)
			return err
		}
		require.ErrorIs(t, dial("tcp", "10.0.0.1:80"), syscall.ECONNREFUSED)
		require.ErrorIs(t, dial("unix", "/run/x"), syscall.ECONNREFUSED)
		require.EqualError(t, dial("tcp", "nowhere.test:80"), "dial tcp: lookup nowhere.test: no such host")
		require.Error(t, dial("udp", "10.0.0.1:80"))
		require.Error(t, dial("tcp", "10.0.0.1"))
		require.Error(t, dial("tcp", "10.0.0.1:http"))

		n.Drop("tcp", "10.0.0.9:80")
		start := time.Now()
		err := dial("tcp", "10.0.0.9:80")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		var timeout net.Error
		require.True(t, errors.As(err, &timeout) && timeout.Timeout())

		time.AfterFunc(time.Second, func() { n.Restore("tcp", "10.0.0.9:80") })
		require.ErrorIs(t, dial("tcp", "10.0.0.9:80"), syscall.ECONNREFUSED)

		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		_, err = n.Listen("tcp", "10.0.0.1:80")
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		for range backlog {
			require.NoError(t, dial("tcp", "10.0.0.1:80"))
		}
		require.ErrorIs(t, dial("tcp", "10.0.0.1:80"), context.DeadlineExceeded, "the backlog is full")
		ln.Close()
		require.ErrorIs(t, dial("tcp", "10.0.0.1:80"), syscall.ECONNREFUSED)
		_, err = ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
	})
}

func TestCloseResetsUnaccepted(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		ln, _ := n.Listen("unix", "/run/x")
		c, err := n.DialContext(t.Context(), "unix", "/run/x")
		require.NoError(t, err)
		ln.Close()
		wantError(t, c, syscall.ECONNRESET)
	})
}

func TestAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		ln, err := n.Listen("tcp", ":80")
		require.NoError(t, err)
		dial := n.DialFrom(netip.MustParseAddrPort("203.0.113.7:0"))
		c, err := dial(t.Context(), "tcp", "10.1.2.3:80")
		require.NoError(t, err)
		s, err := ln.Accept()
		require.NoError(t, err)
		require.Equal(t, "10.1.2.3:80", s.LocalAddr().String())
		require.Equal(t, "203.0.113.7:49152", s.RemoteAddr().String())
		require.Equal(t, c.LocalAddr(), s.RemoteAddr())

		ln, err = n.Listen("tcp", "db.test:5432")
		require.NoError(t, err)
		c, err = n.DialContext(t.Context(), "tcp", "db.test:5432")
		require.NoError(t, err)
		require.Equal(t, ln.Addr(), c.RemoteAddr())
	})
}

func TestDialedAndFailAccept(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		broken := errors.New("broken")
		n.Dialed = func(c *Conn) error {
			if c.RemoteAddr().String() == "10.0.0.1:81" {
				return broken
			}
			c.Peer().CutAfter(2)
			return nil
		}
		_, err := n.Listen("tcp", "10.0.0.1:81")
		require.NoError(t, err)
		_, err = n.DialContext(t.Context(), "tcp", "10.0.0.1:81")
		require.ErrorIs(t, err, broken)

		ln, _ := n.Listen("tcp", "10.0.0.1:80")
		ln.(*Listener).FailAccept(1, syscall.EMFILE)
		c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		_, err = ln.Accept()
		require.ErrorIs(t, err, syscall.EMFILE)
		s, err := ln.Accept()
		require.NoError(t, err)
		send(t, s, "cut")
		wantRead(t, c, "cu")
		wantError(t, c, syscall.ECONNRESET)
	})
}
