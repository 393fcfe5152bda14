// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// Requests that wait for a second connection take the streams that end on the first
// one meanwhile: only the one that dials waits for the dial.
func TestHTTP2RoomWhileConnecting(t *testing.T) {
	const streams, requests, takes = 100, 350, 100 * time.Millisecond
	refused := errors.New("refused")
	for name, second := range map[string]func(*l4test.Network, context.Context) (net.Conn, error){
		"slow dial": func(n *l4test.Network, ctx context.Context) (net.Conn, error) {
			time.Sleep(2 * time.Second)
			return n.DialContext(ctx, "tcp", one)
		},
		"failed dial": func(*l4test.Network, context.Context) (net.Conn, error) {
			time.Sleep(takes + takes/2)
			return nil, refused
		},
		"closed at once": func(n *l4test.Network, ctx context.Context) (net.Conn, error) {
			c, err := n.DialContext(ctx, "tcp", two)
			if err == nil {
				c.(*l4test.Conn).Peer().Close()
			}
			return c, err
		},
		"no SETTINGS": func(n *l4test.Network, ctx context.Context) (net.Conn, error) {
			return n.DialContext(ctx, "tcp", two)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := l4test.NewNetwork()
				ln, err := network.Listen("tcp", one)
				require.NoError(t, err)
				silent, err := network.Listen("tcp", two)
				require.NoError(t, err)
				defer silent.Close()
				srv := &http.Server{Protocols: protocols("h2c"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(takes) })}
				go srv.Serve(ln)
				defer srv.Close()
				var dials atomic.Int32
				tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Protocols: protocols("h2c"),
					Dial: func(ctx context.Context, nw, addr string) (net.Conn, error) {
						if dials.Add(1) == 1 {
							return network.DialContext(ctx, nw, addr)
						}
						return second(network, ctx)
					}}}
				tr.HeaderTimeout = 2 * time.Second
				var wg sync.WaitGroup
				var late atomic.Int32
				for range requests {
					wg.Go(func() {
						start := time.Now()
						res, err := (&http.Client{Transport: tr}).Get("http://" + one)
						if time.Since(start) > requests/streams*takes+takes {
							late.Add(1)
						} else if err != nil {
							t.Error(err)
						}
						if err == nil {
							res.Body.Close()
						}
					})
				}
				wg.Wait()
				if n := late.Load(); n > 1 {
					t.Errorf("%d requests waited for the second connection; want the one that opens it at most", n)
				}
				if n := dials.Load(); n > 4 {
					t.Errorf("%d dials", n)
				}
				tr.Upstream.CloseIdle()
			})
		})
	}
}

// MaxRequests holds when requests come at once.
func TestHTTP2MaxRequestsAtOnce(t *testing.T) {
	const most, requests = 10, 200
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			network := l4test.NewNetwork()
			ln, err := network.Listen("tcp", one)
			require.NoError(t, err)
			var mu sync.Mutex
			served := map[string]int{} // by connection
			srv := &http.Server{Protocols: protocols("h2c"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				served[r.RemoteAddr]++
			})}
			go srv.Serve(ln)
			defer srv.Close()
			tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Dial: network.DialContext, Protocols: protocols("h2c"), MaxRequests: most}}
			var wg sync.WaitGroup
			for range requests {
				wg.Go(func() {
					res, err := (&http.Client{Transport: tr}).Get("http://" + one)
					if err != nil {
						t.Error(err)
						return
					}
					res.Body.Close()
				})
			}
			wg.Wait()
			tr.Upstream.CloseIdle()
			for c, n := range served {
				if n > most {
					t.Errorf("%d requests over %s; want %d", n, c, most)
				}
			}
		})
	}
}

// A server that leaves further connections in its queue gets more than MaxStreams over
// the one that it has accepted, once ConnectTimeout has shown that.
func TestHTTP2MaxStreamsIsExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := l4test.NewNetwork()
		ln, err := network.Listen("tcp", one)
		require.NoError(t, err)
		queue, err := network.Listen("tcp", two)
		require.NoError(t, err)
		defer queue.Close()
		srv := &http.Server{Protocols: protocols("h2c"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Second) })}
		go srv.Serve(ln)
		defer srv.Close()
		var dials atomic.Int32
		tr := &l7.Transport{Pool: newPool(one), HeaderTimeout: 15 * time.Second, Upstream: &l7.Upstream{Protocols: protocols("h2c"), ConnectTimeout: time.Second,
			Dial: func(ctx context.Context, nw, addr string) (net.Conn, error) {
				if dials.Add(1) > 1 {
					addr = two
				}
				return network.DialContext(ctx, nw, addr)
			}}}
		var wg sync.WaitGroup
		var failed, late atomic.Int32
		for range 300 {
			wg.Go(func() {
				start := time.Now()
				res, err := (&http.Client{Transport: tr}).Get("http://" + one)
				if err != nil {
					failed.Add(1)
					return
				}
				res.Body.Close()
				if time.Since(start) > 11*time.Second {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if f, l, d := failed.Load(), late.Load(), dials.Load(); f+l > 1 || d > 2 {
			t.Errorf("%d requests failed, %d were late, %d dials; want the one that opens the second connection at most", f, l, d)
		}
		tr.Upstream.CloseIdle()
	})
}
