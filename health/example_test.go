// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
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
		Logger:   slog.New(slog.DiscardHandler),
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

func ExampleScript() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	s := &healthtest.Server{Service: healthtest.SMTP{}}
	go s.Serve(ln)
	defer s.Close()

	p := health.Script{Steps: []health.Step{
		{Expect: health.Match{Regexp: regexp.MustCompile(`(?m)^220 `)}},
		{Name: "noop", Send: "NOOP\r\n", Expect: health.Match{Contains: "250"}},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	fmt.Println(health.Script{Steps: p.Steps[:1]}.Probe(ctx, balance.Endpoint{Addr: ln.Addr().String()}))
	s.Close()
	fmt.Println(p.Probe(ctx, balance.Endpoint{Addr: ln.Addr().String()}))
	// Output:
	// <nil>
	// connect: connection refused
}

func ExampleOutlier() {
	pool := &balance.Pool{}
	said := make(chan string)
	outlier := &health.Outlier{
		Pool:        pool,
		Consecutive: 3,
		Logger:      slog.New(slog.DiscardHandler),
		OnEjection:  func(e health.Ejection) { said <- fmt.Sprintf("%v %v for %v: %s", e.Server, e.Kind, e.For, e.Reason) },
	}
	pool.OnOutcome = append(pool.OnOutcome, outlier.Observe)
	if err := pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}, balance.Endpoint{Addr: "10.0.0.2:80"}); err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go outlier.Run(ctx)

	for { // live work, of which one server answers nothing
		lease, err := pool.Acquire(ctx, balance.Request{Prefer: "10.0.0.1:80"})
		if err != nil {
			fmt.Println(err)
			return
		}
		lease.Done(balance.Outcome{Class: balance.Timeout})
		select {
		case s := <-said:
			fmt.Println(s)
			return
		default:
			time.Sleep(time.Millisecond)
		}
	}
	// Output:
	// 10.0.0.1:80 ejected for 30s: 3 errors in a row, last timeout
}

// Two gateways use the same servers. Each server is probed by one of them, and the other is
// told what it found.
func ExampleDivided() {
	gateways := &balance.Pool{}
	_ = gateways.Set(balance.Endpoint{Name: "gw-1", Addr: "10.0.0.1:80"}, balance.Endpoint{Name: "gw-2", Addr: "10.0.0.2:80"})
	var board health.MemoryBoard // or a redisboard.Board
	probes := 0
	probe := func(self string) health.Probe {
		return &health.Divided{
			Of: health.Func(func(context.Context, balance.Endpoint) error {
				probes++
				return errors.New("out of order")
			}),
			Share: &balance.Share{Of: gateways, Self: self}, Board: &board, Each: 1,
		}
	}
	web := balance.Endpoint{Name: "web", Addr: "10.0.1.1:80"}
	fmt.Println(probe("gw-2").Probe(context.Background(), web))
	fmt.Println(probe("gw-1").Probe(context.Background(), web))
	fmt.Println(probes)
	// Output:
	// out of order
	// gw-2: out of order
	// 1
}
