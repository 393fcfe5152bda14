// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/etcd"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
	"github.com/penstock-lb/penstock/ratelimit/redisstore"
)

const (
	gatewayKeys = "/fleet/gateways/"
	serverKeys  = "/fleet/servers/"

	limited = 300 // requests a second to /limited, from all gateways together
	lease   = 2 * time.Second
)

// A view is what a gateway knows, as /-/view tells it.
type view struct {
	Gateways int      // as far as it knows
	Servers  []string // of its part, those that it uses
}

// gateway serves until ctx ends.
func gateway(ctx context.Context, o options) error {
	keys, err := clientv3.New(clientv3.Config{Endpoints: []string{o.etcd}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer keys.Close()
	store := redis.NewClient(&redis.Options{Addr: o.redis, ContextTimeoutEnabled: true, MaxRetries: -1})
	defer store.Close()

	gateways := &balance.Pool{Name: "gateways"}
	share := &balance.Share{Of: gateways, Self: o.name}
	web := &balance.Pool{Name: "web", Policy: balance.LeastConn{}, Unproven: true}
	checks := &health.Checker{Pools: []*balance.Pool{web}, Probe: health.HTTP{Path: "/"}, Interval: 500 * time.Millisecond, Initial: health.InitialDown}
	limit := &ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{
		Store: &redisstore.Store{Client: store}, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(limited)}, Gateways: share.Count,
	}}

	proxy := &l7.Proxy{Pool: web, Retry: l7.Retry{Tries: 4, Statuses: []int{502, 503, 504}}}
	routes := &l7.Router{NotFound: proxy}
	if err := routes.Set(
		l7.Route{Name: "view", Match: l7.Path("/-/view"), Handler: told(share, web)},
		l7.Route{Name: "limited", Match: l7.Path("/limited"), Handler: &l7.Limit[string]{
			Limiter: limit, Key: func(*l7.Exchange) (string, bool) { return "all", true }, Next: &l7.FixedReply{Status: 200},
		}},
	); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.http)
	if err != nil {
		return err
	}
	srv := &l7.Server{Handler: routes}
	self := &etcd.Registration{Client: keys, Prefix: gatewayKeys, TTL: lease, Endpoint: balance.Endpoint{Name: o.name, Addr: ln.Addr().String()}}

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	for _, part := range []func() error{
		func() error { return gateways.Follow(ctx, &etcd.Source{Client: keys, Prefix: gatewayKeys}) },
		func() error {
			// Each uses a part of the servers, and checks only that.
			return web.Follow(ctx, &balance.Portion{Source: &etcd.Source{Client: keys, Prefix: serverKeys}, Share: share, Size: 10})
		},
		func() error { return checks.Run(ctx) },
		func() error { return limit.Run(ctx) },
		func() error { return self.Run(ctx) },
		func() error { return srv.Serve(ln) },
	} {
		running.Go(func() { fail(part()) })
	}
	<-ctx.Done()
	_ = srv.Shutdown(context.WithoutCancel(ctx))
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err // a part failed before the context ended
	}
	return nil
}

// told answers with what the gateway knows.
func told(share *balance.Share, web *balance.Pool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		v := view{Gateways: share.Count()}
		for s := range web.All() {
			if s.State() == balance.StateUp {
				v.Servers = append(v.Servers, s.Name())
			}
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}

// server answers with its name until ctx ends.
func server(ctx context.Context, o options) error {
	keys, err := clientv3.New(clientv3.Config{Endpoints: []string{o.etcd}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer keys.Close()
	ln, err := net.Listen("tcp", o.http)
	if err != nil {
		return err
	}
	self := &etcd.Registration{Client: keys, Prefix: serverKeys, TTL: lease, Endpoint: balance.Endpoint{Name: o.name, Addr: ln.Addr().String()}}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(o.name)) }), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Shutdown(context.WithoutCancel(ctx)) })()
	var running sync.WaitGroup
	running.Go(func() { _ = self.Run(ctx) })
	_ = srv.Serve(ln)
	running.Wait()
	return nil
}
