// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

func ExampleChecker() {
	well := httptest.NewServer(http.NotFoundHandler())
	defer well.Close()
	pool := &balance.Pool{}
	if err := pool.Set(
		balance.Endpoint{Name: "a", Addr: well.Listener.Addr().String()},
		balance.Endpoint{Name: "b", Addr: "127.0.0.1:1"},
	); err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	results := make(chan health.Result)
	checker := &health.Checker{
		Pools:    []*balance.Pool{pool},
		Probe:    health.HTTP{Path: "/healthz", Status: []health.StatusRange{{From: 404}}},
		Interval: 5 * time.Second,
		OnResult: func(r health.Result) { results <- r },
		Logger:   quiet,
	}
	go checker.Run(ctx)
	for range 2 {
		r := <-results
		fmt.Printf("%s is %v: %s\n", r.Servers[0].Name(), r.Status.Health, r.Status.Reason)
	}
	// Unordered output:
	// a is up: passed
	// b is down: connect: connection refused
}

// Probes need neither a pool nor a checker.
func ExampleHTTP() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"database": "degraded"}`)
	}))
	defer s.Close()
	e := balance.Endpoint{Addr: s.Listener.Addr().String()}

	fmt.Println(health.HTTP{}.Probe(context.Background(), e))
	fmt.Println(health.HTTP{Content: health.Match{Contains: "degraded", Not: true}}.Probe(context.Background(), e))
	// Output:
	// <nil>
	// HTTP: body has "degraded"
}
