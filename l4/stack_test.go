// SPDX-License-Identifier: Apache-2.0

//go:build !race

package l4

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// On the way to connect no stack grows: it has grown before. (The frames of the race
// detector are larger.)
func TestStackHasGrownBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin := listen(t, n, "10.0.1.1:80")
		defer origin.Close()
		var top, low uintptr
		proxy := &Proxy{Pool: pool(t, "10.0.1.1:80"), Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var here byte
			low = uintptr(unsafe.Pointer(&here))
			return n.DialContext(ctx, network, addr)
		}}
		s := &Server{Logger: quiet, Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			var here byte
			top = uintptr(unsafe.Pointer(&here))
			return proxy.ServeConn(ctx, c)
		})}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		for range 10 { // the collector moves stacks too, rarely
			c := dial(t, n, "10.0.0.1:80")
			far, err := origin.Accept()
			require.NoError(t, err)
			c.Close()
			far.Close()
			synctest.Wait()
			if low < top && top-low < stackConn {
				break
			}
		}
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
		require.Less(t, low, top, "or the stack has moved")
		require.Less(t, int(top-low), stackConn-600, "less what the server has above and connect(2) takes below")
	})
}
