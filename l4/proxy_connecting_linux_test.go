// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestProxyCutAfterFirstBytes: a server that is lost when it has got bytes of the client
// already, before the relay has begun, ends the connection. Another server would get a
// stream without its beginning.
func TestProxyCutAfterFirstBytes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	p := pool(t, ln.Addr().String())
	served := make(chan error, 1)
	s := &Server{Logger: quiet, Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
		proxy := &Proxy{Pool: p, CutOnDown: true}
		proxy.once.Do(proxy.init)
		s := &session{p: proxy, client: NewConn(c), record: RecordOf(c)}
		if _, err := s.client.Peek(1); err != nil {
			return err
		}
		if _, err := s.acquire(ctx, balance.Request{}); err != nil {
			return err
		}
		w := s.connecting.begin(ctx)
		server := s.lease.Server()
		server.Attach(s)
		to, err := s.dialServer(w, server)
		if err != nil || s.relay.sent == 0 {
			t.Errorf("%d bytes sent, %v", s.relay.sent, err)
		}
		server.SetAdmin(balance.Maint, "test")
		err = s.lostUnused(err != nil)
		served <- err
		s.server = NewConn(to)
		w.end()
		s.start(ctx)
		return nil
	})}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	wait := serve(s, front)
	client, err := net.Dial("tcp", front.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("the beginning"))
	require.NoError(t, err)
	server, err := ln.Accept()
	require.NoError(t, err)
	defer server.Close()
	require.NoError(t, <-served, "another server is tried")
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = io.ReadAll(server)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.NoError(t, s.Shutdown(t.Context()))
	require.ErrorIs(t, wait(), ErrServerClosed)
	require.Zero(t, p.Server(ln.Addr().String()).InFlight())
}

// TestProxyDoesNotDialTheLost: a server that has gone since it was chosen is not dialled.
func TestProxyDoesNotDialTheLost(t *testing.T) {
	p := pool(t, "127.0.0.1:1")
	proxy := &Proxy{Pool: p, CutOnDown: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, net.ErrClosed
	}}
	near, far := net.Pipe()
	defer far.Close()
	defer near.Close()
	s := &session{p: proxy, client: NewConn(near)}
	_, err := s.acquire(t.Context(), balance.Request{})
	require.NoError(t, err)
	s.lease.Server().SetAdmin(balance.Maint, "test")
	require.True(t, isCut(s.dial(t.Context(), 1)))
	s.lease.Done(balance.Outcome{})
}

// TestRelayForgetsServersOfEarlierTries: a server that is lost when it has just been
// connected to is closed, and another one is tried. What the Parker says of the first one,
// however late, is nothing to the relay with the second.
func TestRelayForgetsServersOfEarlierTries(t *testing.T) {
	for _, late := range []bool{false, true} {
		p, err := NewParker()
		require.NoError(t, err)
		ended := make(chan error)
		go func() { ended <- p.Run() }()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		client, a := tcpPair(t)
		front := NewConn(a)
		r := &relay{}
		dial := func() *Conn { // so that the Parker waits for the answer
			addr := ln.Addr().String()
			s, _, ok, err := dialSock("tcp", addr)
			require.NoError(t, err)
			require.True(t, ok)
			c, _, err := r.await(t.Context(), p, NewConn(s), s, "tcp", addr, 0)
			require.NoError(t, err)
			t.Cleanup(func() { c.Close() })
			return c
		}
		lost := dial()
		require.NotNil(t, lost.parked.wired)
		if !late {
			lost.unparkClosed()()
			require.False(t, r.isCut.Load())
		}
		_, err = ln.Accept()
		require.NoError(t, err)
		back := dial()
		server, err := ln.Accept()
		require.NoError(t, err)
		r.init(front, back, (&RelayOptions{}).complete(), func(*relay) {})
		r.run(p)
		require.True(t, r.wired)
		if late {
			lost.unparkClosed()()
		}
		wantEchoBetween(t, client, server)
		require.Equal(t, RelayResult{AtoB: 4, BtoA: 4}, r.result())
		r.cut(Termination{}, nil)
		require.NoError(t, p.Close())
		<-ended
	}
}
