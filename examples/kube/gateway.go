// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	discovery "k8s.io/client-go/kubernetes/typed/discovery/v1"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/kube"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
)

// A Gateway forwards requests to the pods of a Service.
type Gateway struct {
	API                discovery.EndpointSlicesGetter
	Namespace, Service string
	Port               string        // by name, or by number in the pods; empty means the only one
	Zone               string        // of this gateway; empty means that zones do not count
	LameDuck           time.Duration // how long it goes on serving when it is to end
}

// Run serves front until ctx is done, then drains, and returns why it ended; page has what
// operators and Kubernetes ask for.
func (g *Gateway) Run(ctx context.Context, front, page net.Listener) error {
	pool := &balance.Pool{Name: g.Service, Policy: balance.LeastConn{}, Locality: balance.Locality{Zone: g.Zone}}
	src := &kube.Source{Client: g.API, Namespace: g.Namespace, Service: g.Service, Port: g.Port}
	// Kubernetes notices within seconds that a pod is not well; failing requests show it
	// at once.
	outlier := &health.Outlier{Pool: pool}
	pool.OnOutcome = append(pool.OnOutcome, outlier.Observe)
	srv := &l7.Server{Handler: &l7.Proxy{Pool: pool}, LameDuck: g.LameDuck}

	operators := http.NewServeMux()
	operators.Handle("/", &admin.Handler{Title: "gateway of " + g.Service, Pools: []*balance.Pool{pool},
		Servers: map[string]admin.Server{"http": srv}, Allow: admin.Local})
	operators.Handle("/ready", &l7.Monitor{Path: "/ready", Fail: func() bool { return pool.Usable() == 0 }, Next: &l7.Deny{}})
	ops := &http.Server{Handler: operators, ReadHeaderTimeout: 10 * time.Second}

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	following, stop := context.WithCancel(context.WithoutCancel(ctx)) // also while it drains
	running.Go(func() { fail(pool.Follow(following, src)) })
	running.Go(func() { fail(outlier.Run(following)) })
	running.Go(func() { fail(srv.Serve(front)) })
	running.Go(func() { fail(ops.Serve(page)) })

	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.LameDuck+20*time.Second)
	defer cancel()
	err := srv.Shutdown(drain)
	stop()
	_ = ops.Close()
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // nobody asked it to end
	}
	return err
}
