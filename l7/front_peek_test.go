// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// TestClientGoneInMemory has a client leave while a server thinks, on a
// connection that no Parker can watch.
func TestClientGoneInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		released := make(chan time.Duration, 1)
		started := time.Now()
		slow := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			released <- time.Since(started)
		})}
		go slow.Serve(origin)

		pool := new(balance.Pool)
		require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}))
		ended := make(chan l4.Termination, 1)
		gw := &l7.Server{
			Handler: &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: n.DialContext}},
			OnDone:  func(r *l7.Record) { ended <- r.Termination },
		}
		ln, err := n.Listen("tcp", "10.0.0.9:80")
		require.NoError(t, err)
		go gw.Serve(ln)

		c, err := n.DialContext(t.Context(), "tcp", "10.0.0.9:80")
		require.NoError(t, err)
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, c.Close())

		require.Equal(t, time.Second, <-released, "the server is let go at once")
		require.Equal(t, l4.ClientAborted, (<-ended).Cause)
		require.NoError(t, gw.Shutdown(context.Background()))
		require.NoError(t, slow.Close())
	})
}
