// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/chaostest"
)

// failures are the ways in which services fail: each for a quarter of an hour.
var failures = []healthtest.Mode{healthtest.Starting, healthtest.Silent, healthtest.Closing, healthtest.Garbage}

// TestADayOfFailures plays the whole gateway for a day. Each hour one of the two services for
// users fails, in another way; a client that asks each minute gets every answer, within the time
// of one retry.
func TestADayOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, down := l4test.NewNetwork(), 0
		users := &balance.Pool{Name: "users", Seed: 1, OnEvent: func(e balance.Event) {
			if e.To == balance.StateDown {
				down++
			}
		}}
		require.NoError(t, users.Set(balance.Endpoint{Name: "users-1", Addr: "10.0.0.1:80"}, balance.Endpoint{Name: "users-2", Addr: "10.0.0.2:80"}))
		var services []*healthtest.Server
		for s := range users.All() {
			services = append(services, &healthtest.Server{Service: healthtest.HTTP{Handler: service(s.Name())}})
			serve(t, network, s.Addr(), services[len(services)-1])
		}
		connections := &l7.Upstream{Dial: network.DialContext, Seed: 1}
		t.Cleanup(connections.CloseIdle)
		serve(t, network, "10.0.0.9:80", &l7.Server{Handler: gateway(users, new(balance.Pool), connections)})
		checks := &health.Checker{Pools: []*balance.Pool{users}, Interval: 30 * time.Second, Fast: time.Second, Probe: health.HTTP{Path: "/api/alive", Connect: health.Connect{Dial: network.DialContext}}}
		ctx, stop := context.WithCancel(t.Context())
		checked := make(chan struct{})
		go func() { defer close(checked); _ = checks.Run(ctx) }()
		defer func() { stop(); <-checked }()

		transport := &http.Transport{DialContext: network.DialContext}
		defer transport.CloseIdleConnections()
		for minute := range 24 * 60 {
			service, hour := services[minute/60%2], minute/60
			switch minute % 60 {
			case 10:
				service.Set(failures[hour%len(failures)])
			case 25:
				service.Set(healthtest.Healthy)
			}
			asked := time.Now()
			r, _ := http.NewRequest("GET", "http://10.0.0.9/api/users/7", nil)
			r.SetBasicAuth("ann", "one")
			resp, err := (&http.Client{Transport: transport}).Do(r)
			require.NoError(t, err, "minute %d", minute)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Regexp(t, `^users-[12]: /users/7 for ann\n$`, string(body), "minute %d", minute)
			require.LessOrEqual(t, time.Since(asked), 3*time.Second, "minute %d", minute)
			time.Sleep(time.Minute - time.Since(asked))
		}
		require.Equal(t, 24, down, "the checks have found each failure, and nothing else")
		require.Equal(t, 2, users.Usable())
	})
}

// serve starts a server at an address, and stops it at the end of the test.
func serve(t *testing.T, network *l4test.Network, addr string, s interface {
	Serve(ln net.Listener) error
	Close() error
}) {
	ln, err := network.Listen("tcp", addr)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

// TestDisorder plays stories that nobody has thought of: see package chaostest.
func TestDisorder(t *testing.T) {
	chaostest.Run(t, chaostest.Plan{Seeds: 5}, func(w *chaostest.World) chaostest.Gateway {
		users := &balance.Pool{Name: "users", Seed: 1}
		require.NoError(t, users.Set(w.Endpoints()...))
		w.Pool(users)
		connections := &l7.Upstream{Dial: w.Dial, Seed: 1}
		w.Cleanup(connections.CloseIdle)
		api := gateway(users, new(balance.Pool), connections)
		return &l7.Server{Handler: l7.HandlerFunc(func(x *l7.Exchange) { // what the clients of the kit do not know
			x.Header.Set("Authorization", "Basic YW5uOm9uZQ==")
			x.Path = "/api/users" + x.Path
			l7.Serve(api, x)
		})}
	})
}
