// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

const (
	headerV1 = "PROXY TCP4 203.0.113.9 198.51.100.1 51234 443\r\n"
	everyone = "0.0.0.0/0"
)

// accepted is what came of one connection through an AcceptProxy.
type accepted struct {
	client        *l4test.Conn
	done          chan struct{}
	served        bool
	remote, local string
	header        *ProxyHeader
	data          string
	err           error
}

func acceptProxy(ctx context.Context, a AcceptProxy) *accepted {
	client, server := l4test.Pipe()
	g := &accepted{client: client, done: make(chan struct{})}
	a.Next = HandlerFunc(func(_ context.Context, c net.Conn) error {
		defer c.Close()
		g.served = true
		g.remote, g.local, g.header = c.RemoteAddr().String(), c.LocalAddr().String(), ProxyHeaderOf(c)
		b, err := io.ReadAll(c)
		g.data = string(b)
		return err
	})
	go func() {
		defer close(g.done)
		g.err = a.ServeConn(ctx, server)
	}()
	return g
}

// TestAcceptProxySplit sends each header in two parts, cut at every byte, and
// byte by byte, with what follows it.
func TestAcceptProxySplit(t *testing.T) {
	long, err := (&ProxyHeader{
		Source: &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, Destination: &net.TCPAddr{IP: net.ParseIP("2001:db8::2"), Port: 2},
		TLVs: []TLV{{TLVAuthority, []byte("a.test")}, {0xE0, make([]byte, 3000)}, {Type: TLVCRC32C}},
	}).AppendBinary(nil)
	require.NoError(t, err)
	for _, tt := range []struct{ header, remote, local string }{
		{headerV1, "203.0.113.9:51234", "198.51.100.1:443"},
		{"PROXY UNKNOWN\r\n", "", ""},
		{v2(0x21, 0x11, inet4), "10.0.0.1:56789", "10.0.0.2:443"},
		{v2(0x20, 0x00, ""), "", ""},
		{string(long), "[2001:db8::1]:1", "[2001:db8::2]:2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			step := 1 + len(tt.header)/200
			for cut := 0; cut <= len(tt.header); cut += step {
				g := acceptProxy(t.Context(), AcceptProxy{Trusted: MustParsePrefixes(everyone)})
				io.WriteString(g.client, tt.header[:cut])
				synctest.Wait()
				require.Equal(t, cut == len(tt.header), g.served)
				time.Sleep(time.Second)
				io.WriteString(g.client, tt.header[cut:]+"data")
				g.client.CloseWrite()
				<-g.done
				require.NoError(t, g.err)
				require.Equal(t, "data", g.data, "nothing lost, nothing of the header left")
				if tt.remote == "" {
					require.Equal(t, g.client.LocalAddr().String(), g.remote, "the socket's own")
					require.Equal(t, g.client.RemoteAddr().String(), g.local)
				} else {
					require.Equal(t, tt.remote, g.remote)
					require.Equal(t, tt.local, g.local)
				}
				require.NotNil(t, g.header)
			}
			g := acceptProxy(t.Context(), AcceptProxy{Trusted: MustParsePrefixes(everyone)})
			for i := range len(tt.header) {
				io.WriteString(g.client, tt.header[i:i+1])
				synctest.Wait()
			}
			require.True(t, g.served)
			g.client.CloseWrite()
			<-g.done
			require.NoError(t, g.err)
		})
	}
}

func TestAcceptProxyRefuses(t *testing.T) {
	for _, tt := range []struct {
		why  string
		a    AcceptProxy
		do   func(*l4test.Conn)
		want error
		took time.Duration
	}{
		{why: "nobody is trusted by the zero value", a: AcceptProxy{}, do: func(c *l4test.Conn) { io.WriteString(c, headerV1) }, want: ErrRejected},
		{why: "another prefix is trusted", a: AcceptProxy{Trusted: MustParsePrefixes("203.0.113.0/24")}, do: func(c *l4test.Conn) { io.WriteString(c, headerV1) }, want: ErrRejected},
		{why: "no header", do: func(c *l4test.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") }, want: ErrProxyHeader},
		{why: "a bad header, at once", do: func(c *l4test.Conn) { io.WriteString(c, "PROXY TCP4 1.2.3.4\n") }, want: ErrProxyHeader},
		{why: "nothing, and the end: a look at the port", do: func(c *l4test.Conn) { c.CloseWrite() }, want: nil},
		{why: "half a header, and the end", do: func(c *l4test.Conn) { io.WriteString(c, headerV1[:20]); c.CloseWrite() }, want: ErrProxyHeader},
		{why: "silence", do: func(*l4test.Conn) {}, want: os.ErrDeadlineExceeded, took: 5 * time.Second},
		{
			why: "slow loris", a: AcceptProxy{Timeout: 2 * time.Second}, want: os.ErrDeadlineExceeded, took: 2 * time.Second,
			do: func(c *l4test.Conn) {
				for i := range headerV1[:20] {
					io.WriteString(c, headerV1[i:i+1])
					time.Sleep(500 * time.Millisecond)
				}
			},
		},
		{why: "too long, by its own word", do: func(c *l4test.Conn) { io.WriteString(c, v2(0x21, 0x11, inet4+strings.Repeat("x", 5000))[:16]) }, want: ErrProxyHeader},
		{why: "over the host's bound", a: AcceptProxy{MaxBytes: 40}, do: func(c *l4test.Conn) { io.WriteString(c, headerV1) }, want: ErrProxyHeader},
	} {
		t.Run(tt.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if tt.a.Trusted.set == nil && tt.want != ErrRejected {
					tt.a.Trusted = MustParsePrefixes(everyone)
				}
				g := acceptProxy(t.Context(), tt.a)
				ended := make(chan time.Duration, 1)
				go func() { <-g.done; ended <- time.Since(start) }()
				tt.do(g.client)
				<-g.done
				require.False(t, g.served)
				if tt.want == nil {
					require.NoError(t, g.err)
				} else {
					require.ErrorIs(t, g.err, tt.want)
				}
				require.Equal(t, tt.took, <-ended)
				_, err := g.client.Read(make([]byte, 1))
				require.Error(t, err)
			})
		})
	}
}

func TestAcceptProxyBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := acceptProxy(t.Context(), AcceptProxy{Trusted: MustParsePrefixes(everyone), MaxBytes: -1})
		b := v2(0x21, 0x11, inet4+"\x04\xff\xf0"+strings.Repeat("x", 0xfff0)) // the longest there is
		io.WriteString(g.client, b+"data")
		g.client.CloseWrite()
		<-g.done
		require.NoError(t, g.err)
		require.Equal(t, "data", g.data)
	})
}

func TestAcceptProxyOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var remote, data string
		others := HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			b, err := io.ReadAll(c)
			remote, data = c.RemoteAddr().String(), string(b)
			return err
		})
		g := acceptProxy(t.Context(), AcceptProxy{Others: others})
		io.WriteString(g.client, headerV1)
		g.client.CloseWrite()
		<-g.done
		require.NoError(t, g.err)
		require.Equal(t, g.client.LocalAddr().String(), remote, "what an untrusted client says of itself does not count")
		require.Equal(t, headerV1, data)
	})
}

func TestAcceptProxyContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := acceptProxy(ctx, AcceptProxy{Trusted: MustParsePrefixes(everyone), Timeout: -1})
		synctest.Wait()
		cancel()
		<-g.done
		require.Error(t, g.err)
		require.False(t, g.served)
	})
}

// TestAcceptProxyUnderTLS shows that the addresses shine through what is built
// on the connection.
func TestAcceptProxyUnderTLS(t *testing.T) {
	client, server := l4test.Pipe()
	cfg := testConfig(t, "a.test")
	var remote string
	var header *ProxyHeader
	a := &AcceptProxy{Trusted: MustParsePrefixes(everyone), Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
		c = NewConn(tls.Server(c, cfg))
		defer c.Close()
		remote, header = c.RemoteAddr().String(), ProxyHeaderOf(c)
		_, err := io.Copy(c, c)
		return err
	})}
	done := make(chan error, 1)
	go func() { done <- a.ServeConn(t.Context(), server) }()
	io.WriteString(client, headerV1)
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	_, err := io.WriteString(c, "hello")
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))
	require.NoError(t, <-done)
	require.Equal(t, "203.0.113.9:51234", remote)
	require.NotNil(t, header)
	require.Nil(t, ProxyHeaderOf(client))
}

func TestAcceptProxyUnix(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer ln.Close()
	for _, trust := range []bool{true, false} {
		c, err := net.Dial("unix", ln.Addr().String())
		require.NoError(t, err)
		io.WriteString(c, headerV1)
		s, err := ln.Accept()
		require.NoError(t, err)
		var remote string
		a := &AcceptProxy{TrustUnix: trust, Trusted: MustParsePrefixes(everyone), Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
			remote = c.RemoteAddr().String()
			return c.Close()
		})}
		err = a.ServeConn(t.Context(), s)
		c.Close()
		if !trust {
			require.ErrorIs(t, err, ErrRejected)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "203.0.113.9:51234", remote)
	}
}
