// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// echoing is a server that says where its client comes from, and a pool of it.
func echoing(t *testing.T) *balance.Pool {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	pool := &balance.Pool{}
	require.NoError(t, pool.Set(balance.Endpoint{Addr: ln.Addr().String()}))
	return pool
}

// throughProxy asks by way of p, from 127.0.0.9.
func throughProxy(t *testing.T, p *Proxy) (said string, gateway, client netip.AddrPort) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &Server{Handler: p}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	c, err := (&SocketOptions{Source: netip.MustParseAddr("127.0.0.9")}).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	client, _ = addrPort(c.LocalAddr())
	c.Close()
	require.NoError(t, srv.Close())
	<-done
	gateway, _ = addrPort(ln.Addr())
	return string(b), gateway, client
}

// TestDialingFor: a DialFunc knows its client.
func TestDialingFor(t *testing.T) {
	var got Client
	p := &Proxy{Pool: echoing(t), Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		got, _ = DialingFor(ctx)
		dst, err := OriginalDst(got.Conn)
		if err == nil && dst != got.Local { // there may be a connection tracker, which knows that it was not redirected
			t.Errorf("original destination %v, local address %v", dst, got.Local)
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	said, gateway, client := throughProxy(t, p)
	require.Equal(t, "127.0.0.1", said)
	require.Equal(t, client, got.Remote)
	require.Equal(t, gateway, got.Local)
	_, ok := DialingFor(t.Context())
	require.False(t, ok)
	one, two := net.Pipe()
	defer one.Close()
	defer two.Close()
	_, err := OriginalDst(one)
	require.Error(t, err)
}

// TestTransparent: the server sees the client's address.
func TestTransparent(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_NET_ADMIN")
	}
	said, _, _ := throughProxy(t, &Proxy{Pool: echoing(t), Socket: SocketOptions{Transparent: true}})
	require.Equal(t, "127.0.0.9", said)
	c, err := (&SocketOptions{Transparent: true}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
	if err == nil { // for nobody, it dials as always
		c.Close()
	}
	require.ErrorContains(t, err, "refused")
}
