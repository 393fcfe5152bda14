// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// seeds is how many are played: PENSTOCK_SEEDS, or n.
func seeds(t *testing.T, n int) int {
	if v := os.Getenv("PENSTOCK_SEEDS"); v != "" {
		many, err := strconv.Atoi(v)
		require.NoError(t, err)
		return many
	}
	return n
}

var quiet = slog.New(slog.DiscardHandler)

func pool(w *World, each func(*balance.Endpoint)) *balance.Pool {
	p := &balance.Pool{Queue: balance.Queue{Size: 20}, Seed: 1}
	list := w.Endpoints()
	for i := range list {
		each(&list[i])
	}
	if err := p.Set(list...); err != nil {
		panic(err)
	}
	w.Pool(p)
	return p
}

func upstream(w *World, h2c bool) *l7.Upstream {
	u := &l7.Upstream{Dial: w.Dial, Seed: 1, Protocols: new(http.Protocols)}
	u.Protocols.SetHTTP1(!h2c)
	u.Protocols.SetUnencryptedHTTP2(h2c)
	w.Cleanup(u.CloseIdle)
	return u
}

func TestServerInDisorder(t *testing.T) {
	Run(t, Plan{Seeds: seeds(t, 25)}, func(w *World) Gateway {
		p := pool(w, func(e *balance.Endpoint) { e.MaxConns = 2 })
		return &l7.Server{Logger: quiet, Handler: &l7.Proxy{Pool: p, Upstream: upstream(w, false)}}
	})
}

func TestNoLossInDisorder(t *testing.T) {
	Run(t, Plan{Seeds: seeds(t, 25), NoLoss: true}, func(w *World) Gateway {
		p := pool(w, func(*balance.Endpoint) {})
		p.Budget.Share = 1
		return &l7.Server{Logger: quiet, Handler: &l7.Proxy{Pool: p, Upstream: upstream(w, false), Seed: 1, Retry: l7.Retry{Tries: 3, Classes: []balance.Class{balance.ConnectFailed, balance.ConnectTimeout, balance.Timeout, balance.Reset, balance.Protocol}}}}
	})
}

func TestStandardFrontInDisorder(t *testing.T) {
	Run(t, Plan{Seeds: seeds(t, 20)}, func(w *World) Gateway {
		p := pool(w, func(*balance.Endpoint) {})
		s := &http.Server{Handler: &l7.Proxy{Pool: p, Upstream: upstream(w, false), Logger: quiet}, Protocols: new(http.Protocols)}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		return s
	})
}

func TestHTTP2ToServersInDisorder(t *testing.T) {
	Run(t, Plan{Seeds: seeds(t, 25)}, func(w *World) Gateway {
		p := pool(w, func(e *balance.Endpoint) { e.MaxConns = 3 })
		return &l7.Server{Logger: quiet, Handler: &l7.Proxy{Pool: p, Upstream: upstream(w, true), Seed: 1}}
	})
}

// What is around a Proxy in a gateway of some size.
func TestTreeInDisorder(t *testing.T) {
	Run(t, Plan{Seeds: seeds(t, 20)}, func(w *World) Gateway {
		p := pool(w, func(e *balance.Endpoint) { e.MaxConns = 2 })
		up := upstream(w, false)
		proxy := &l7.Proxy{Pool: p, Upstream: up, Seed: 1, Hedge: l7.Hedge{Delay: 100 * time.Millisecond}, Timeout: time.Minute}
		var tree http.Handler = &l7.Persist{Pool: p, Name: "SRV", Next: proxy}
		tree = l7.NewRouter(l7.Route{Match: l7.Method("POST"), Handler: &l7.BufferBody{Next: tree}}, l7.Route{Handler: tree})
		tree = &l7.Wrap{Next: tree, With: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Wrapped", "yes")
				next.ServeHTTP(w, r)
			})
		}}
		return &l7.Server{Logger: quiet, Handler: tree}
	})
}

// A handler of net/http in between, whose connections go to the standard front.
func TestSandwichInDisorder(t *testing.T) {
	Run(t, Plan{Seeds: seeds(t, 20)}, func(w *World) Gateway {
		p := pool(w, func(e *balance.Endpoint) { e.MaxConns = 2 })
		proxy := &l7.Proxy{Pool: p, Upstream: upstream(w, false), Seed: 1}
		return &l7.Server{Logger: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(w, r) })}
	})
}
