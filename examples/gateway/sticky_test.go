// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// TestRollingDeployOfStickySessions replaces two servers, one after the other, under
// clients that stay at their server by a cookie. Not one of their requests is lost, although
// they are POSTs, which may not be sent twice.
func TestRollingDeployOfStickySessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		start := func(name, addr string) *http.Server {
			ln, err := n.Listen("tcp", addr)
			require.NoError(t, err)
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(50 * time.Millisecond)
				fmt.Fprint(w, name)
			})}
			go func() { _ = s.Serve(ln) }()
			return s
		}
		servers := map[string]*http.Server{"one": start("one", "10.0.0.1:80"), "two": start("two", "10.0.0.2:80")}
		pool := &balance.Pool{Name: "web"}
		require.NoError(t, pool.Set(balance.Endpoint{Name: "one", Addr: "10.0.0.1:80"}, balance.Endpoint{Name: "two", Addr: "10.0.0.2:80"}))
		gateway := &l7.Server{Handler: &l7.Persist{Pool: pool, Keys: [][]byte{[]byte("sixteen bytes or more")},
			Next: &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: n.DialContext}}}}
		ln, err := n.Listen("tcp", "10.0.0.9:80")
		require.NoError(t, err)
		go func() { _ = gateway.Serve(ln) }()

		var over atomic.Bool
		var clients sync.WaitGroup
		for i := range 10 {
			clients.Go(func() {
				jar, _ := cookiejar.New(nil)
				transport := &http.Transport{DialContext: n.DialContext}
				defer transport.CloseIdleConnections()
				for client := (&http.Client{Jar: jar, Transport: transport}); !over.Load(); time.Sleep(time.Duration(i+1) * 7 * time.Millisecond) {
					resp, err := client.Post("http://10.0.0.9/", "text/plain", nil)
					if err != nil || resp.StatusCode != 200 {
						t.Errorf("client %d at %v: %v, %v", i, time.Now(), resp, err)
						continue
					}
					_ = resp.Body.Close()
				}
			})
		}
		time.Sleep(2 * time.Second)
		for name, server := range servers {
			s := pool.Server(name)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_ = s.Drain(ctx) // new clients go to the other server; those with a cookie still come
			cancel()
			s.SetAdmin(balance.Maint, "deploy") // and now they do not
			ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			require.NoError(t, s.WaitIdle(ctx))
			cancel()
			require.NoError(t, server.Shutdown(t.Context()))
			time.Sleep(time.Second)
			servers[name] = start(name, s.Addr())
			s.SetAdmin(balance.Ready, "deployed")
			time.Sleep(2 * time.Second)
		}
		over.Store(true)
		clients.Wait()
		require.NoError(t, gateway.Shutdown(t.Context()))
		for _, s := range servers {
			require.NoError(t, s.Shutdown(t.Context()))
		}
	})
}
