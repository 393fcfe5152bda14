// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// tcpPair returns two ends of a loopback connection.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	return pair(t, "tcp", "127.0.0.1:0")
}

func pair(t testing.TB, network, addr string) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	defer ln.Close()
	a, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	b, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func tlsPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	a, b = tcpPair(t)
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	client := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	require.NoError(t, server.Handshake())
	require.NoError(t, <-done)
	return server, client
}

// kinds are the connections that Conn treats differently.
var kinds = map[string]func(t testing.TB) (a, b net.Conn){
	"tcp":  tcpPair,
	"unix": func(t testing.TB) (a, b net.Conn) { return pair(t, "unix", filepath.Join(t.TempDir(), "s")) },
	"tls":  tlsPair,
	"other": func(t testing.TB) (a, b net.Conn) {
		a, b = tcpPair(t)
		return struct{ net.Conn }{a}, b
	},
}

func eachKind(t *testing.T, f func(t *testing.T, c *Conn, peer net.Conn)) {
	for name, pair := range kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			f(t, NewConn(a), b)
		})
	}
}

func TestConnPeek(t *testing.T) {
	eachKind(t, func(t *testing.T, c *Conn, peer net.Conn) {
		io.WriteString(peer, "hello")
		head, err := c.Peek(2)
		require.NoError(t, err)
		require.Equal(t, "he", string(head))
		go io.WriteString(peer, ", world")
		head, err = c.Peek(12)
		require.NoError(t, err)
		require.Equal(t, "hello, world", string(head))
		require.Equal(t, "hello, world", string(c.Buffered()))
		c.Discard(2)

		p := make([]byte, 3)
		n, err := c.Read(p)
		require.NoError(t, err)
		require.Equal(t, "llo", string(p[:n]))

		pool := &BufferPool{Size: 4}
		b, err := c.ReadBuffer(pool)
		require.NoError(t, err)
		require.Equal(t, ", wo", string(b.B))
		pool.Put(b)
		c.Discard(100)
		require.Empty(t, c.Buffered())
		require.EqualValues(t, 12, c.BytesRead())

		io.WriteString(peer, "end")
		peer.Close()
		head, err = c.Peek(4)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, "end", string(head))
		require.True(t, c.PeerGone())
	})
}

// TestConnReadBuffer sends messages of all sizes: none may be held back until
// the next comes.
func TestConnReadBuffer(t *testing.T) {
	eachKind(t, func(t *testing.T, c *Conn, peer net.Conn) {
		pool := &BufferPool{Size: 1024}
		for _, size := range []int{1, 2, 1023, 1024, 1025, 5000, 1} {
			sent := bytes.Repeat([]byte{byte(size)}, size)
			go peer.Write(sent)
			var got []byte
			for len(got) < size {
				b, err := c.ReadBuffer(pool)
				require.NoError(t, err)
				require.NotEmpty(t, b.B)
				got = append(got, b.B...)
				pool.Put(b)
			}
			require.Equal(t, sent, got)
		}
	})
}

func TestConnReadBufferDeadline(t *testing.T) {
	eachKind(t, func(t *testing.T, c *Conn, peer net.Conn) {
		pool := &BufferPool{}
		io.WriteString(peer, "x")
		b, err := c.ReadBuffer(pool)
		require.NoError(t, err)
		pool.Put(b)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		_, err = c.ReadBuffer(pool)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.False(t, c.PeerGone())

		require.NoError(t, c.SetDeadline(time.Time{}))
		io.WriteString(peer, "y")
		b, err = c.ReadBuffer(pool)
		require.NoError(t, err, "a deadline that passed does no lasting harm")
		require.Equal(t, "y", string(b.B))

		go func() { time.Sleep(10 * time.Millisecond); c.SetReadDeadline(time.Unix(1, 0)) }()
		_, err = c.ReadBuffer(pool)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a deadline moved to the past wakes a waiting read")
	})
}

func TestConnCloseWrite(t *testing.T) {
	for _, kind := range []string{"tcp", "unix", "tls"} {
		t.Run(kind, func(t *testing.T) {
			a, b := kinds[kind](t)
			c := NewConn(a)
			_, err := io.WriteString(c, "last words")
			require.NoError(t, err)
			require.NoError(t, c.CloseWrite())
			got, err := io.ReadAll(b)
			require.NoError(t, err)
			require.Equal(t, "last words", string(got))
			io.WriteString(b, "heard")
			p := make([]byte, 5)
			_, err = io.ReadFull(c, p)
			require.NoError(t, err)
			require.EqualValues(t, 10, c.BytesWritten())
		})
	}
	a, _ := tcpPair(t)
	require.ErrorContains(t, NewConn(struct{ net.Conn }{a}).CloseWrite(), "unsupported")
}

// TestConnWriteAll fills the socket's buffers many times over.
func TestConnWriteAll(t *testing.T) {
	eachKind(t, func(t *testing.T, c *Conn, peer net.Conn) {
		sent := make([]byte, 4<<20)
		rand.Read(sent)
		go func() {
			n, err := c.Write(sent)
			if n != len(sent) || err != nil {
				t.Errorf("Write = %d, %v", n, err)
			}
			c.Close()
		}()
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		require.True(t, bytes.Equal(sent, got))
	})
}

func TestConnWriteMore(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){"TCP": tcpPair, "TLS": tlsPair} {
		a, b := pair(t)
		c := NewConn(a)
		n, err := c.WriteMore([]byte("to be "))
		require.NoError(t, err, name)
		require.Equal(t, 6, n)
		send(t, c, "continued")
		got := make([]byte, 15)
		_, err = io.ReadFull(b, got)
		require.NoError(t, err, name)
		require.Equal(t, "to be continued", string(got))
		require.Equal(t, int64(15), c.BytesWritten())
	}
}

func TestConnWriteDeadline(t *testing.T) {
	long := make([]byte, 64<<20) // more than all buffers between the two take
	eachKind(t, func(t *testing.T, c *Conn, peer net.Conn) {
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
		n, err := c.Write(long)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Less(t, n, len(long))
		require.EqualValues(t, n, c.BytesWritten())
	})
}

func TestConnReset(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(a)
	b.(*net.TCPConn).SetLinger(0)
	b.Close()
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.True(t, strings.HasPrefix(err.Error(), "read tcp 127.0.0.1:"), "%v", err)
	require.True(t, c.PeerGone())
	require.NoError(t, c.Close())
	_, err = c.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = c.ReadBuffer(&BufferPool{})
	require.ErrorIs(t, err, net.ErrClosed)
}

// TestConnCopies runs io.Copy through Conns: what was read ahead comes first.
func TestConnCopies(t *testing.T) {
	eachKind(t, func(t *testing.T, src *Conn, from net.Conn) {
		a, to := tcpPair(t)
		dst := NewConn(a)
		body := strings.Repeat("0123456789", 20_000)
		go func() {
			io.WriteString(from, body)
			from.Close()
		}()
		_, err := src.Peek(5)
		require.NoError(t, err)
		go func() {
			n, err := io.Copy(dst, src)
			if n != int64(len(body)) || err != nil {
				t.Errorf("Copy = %d, %v", n, err)
			}
			dst.Close()
		}()
		got, err := io.ReadAll(to)
		require.NoError(t, err)
		require.Equal(t, body, string(got))
		require.EqualValues(t, len(body), src.BytesRead())
		require.EqualValues(t, len(body), dst.BytesWritten())
	})
}

// TestConnIsNetConn leaves out what asks for several readers at once.
func TestConnIsNetConn(t *testing.T) {
	if testing.Short() {
		t.Skip()
	}
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := tcpPair(t)
		return locked(NewConn(a)), locked(NewConn(b)), func() { a.Close(); b.Close() }, nil
	})
}

func TestNewConnOfConn(t *testing.T) {
	a, _ := tcpPair(t)
	c := NewConn(a)
	require.Same(t, c, NewConn(c))
	require.Same(t, a, c.NetConn())
	require.Nil(t, c.TLS())
	s, _ := tlsPair(t)
	require.True(t, NewConn(s).TLS().HandshakeComplete)
}

func TestConnAllocs(t *testing.T) {
	a, b := tcpPair(t)
	c, peer := NewConn(a), NewConn(b)
	pool := &BufferPool{}
	msg := []byte("ping")
	n := testing.AllocsPerRun(1000, func() {
		peer.Write(msg)
		b, err := c.ReadBuffer(pool)
		if err != nil || string(b.B) != "ping" {
			t.Fatal(err)
		}
		pool.Put(b)
	})
	require.Zero(t, int(n))
}

func BenchmarkConnEcho(b *testing.B) {
	run := func(b *testing.B, wrap func(net.Conn) net.Conn) {
		x, y := tcpPair(b)
		x, y = wrap(x), wrap(y)
		go func() {
			p := make([]byte, 1024)
			for {
				n, err := x.Read(p)
				if err != nil {
					return
				}
				x.Write(p[:n])
			}
		}()
		p := make([]byte, 128)
		b.ReportAllocs()
		for b.Loop() {
			y.Write(p)
			if _, err := io.ReadFull(y, p); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("net.Conn", func(b *testing.B) { run(b, func(c net.Conn) net.Conn { return c }) })
	b.Run("l4.Conn", func(b *testing.B) { run(b, func(c net.Conn) net.Conn { return NewConn(c) }) })
}

// lockedConn adds what Conn leaves out of net.Conn: several readers and
// writers at once.
type lockedConn struct {
	*Conn
	r, w chan struct{}
}

func locked(c *Conn) net.Conn {
	return lockedConn{c, make(chan struct{}, 1), make(chan struct{}, 1)}
}

func (c lockedConn) Read(p []byte) (int, error) {
	c.r <- struct{}{}
	defer func() { <-c.r }()
	return c.Conn.Read(p)
}

func (c lockedConn) Write(p []byte) (int, error) {
	c.w <- struct{}{}
	defer func() { <-c.w }()
	return c.Conn.Write(p)
}
