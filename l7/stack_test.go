// SPDX-License-Identifier: Apache-2.0

//go:build !race

package l7

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// deepConn notes how deep in the stack it is written to.
type deepConn struct {
	net.Conn
	at *uintptr
}

func (c deepConn) Write(p []byte) (int, error) {
	var here byte
	*c.at = uintptr(unsafe.Pointer(&here))
	return c.Conn.Write(p)
}

// From the root of a tree to the socket of a server no stack grows: it has grown before.
// (The frames of the race detector are larger.)
func TestStackHasGrownBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		back := &http.Server{Handler: http.NotFoundHandler()}
		go func() { _ = back.Serve(origin) }()
		defer back.Close()
		pool := new(balance.Pool)
		require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}))
		var top, low uintptr
		up := &Upstream{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := n.DialContext(ctx, network, addr)
			return deepConn{c, &low}, err
		}}
		defer up.CloseIdle()
		proxy := &Proxy{Pool: pool, Upstream: up}
		srv := &Server{Handler: HandlerFunc(func(x *Exchange) {
			var here byte
			top = uintptr(unsafe.Pointer(&here))
			Serve(proxy, x)
		})}
		front, err := n.Listen("tcp", "10.0.0.2:80")
		require.NoError(t, err)
		go func() { _ = srv.Serve(front) }()
		defer srv.Close()
		// The second goes by the connection of the first, as nearly all do. The collector moves
		// stacks too, rarely.
		for i := 0; i < 2 || i < 10 && (low >= top || top-low >= stackHTTP1); i++ {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.2:80")
			require.NoError(t, err)
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			_, _ = io.ReadAll(c)
			_ = c.Close()
		}
		require.Less(t, low, top, "or the stack has moved")
		require.Less(t, int(top-low), stackHTTP1-1500, "less what the server has above and the socket below")
		t.Log(top - low)
	})
}
