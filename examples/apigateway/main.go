// SPDX-License-Identifier: Apache-2.0

// Apigateway is a gateway before two services: request ids, a login, a limit
// for each user, and paths that are rewritten on the way. The services run
// inside it.
//
//	go run ./examples/apigateway
//	curl -i -u ann:one http://127.0.0.1:8081/api/users/7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

func main() {
	addr := flag.String("http", "127.0.0.1:8081", "serve HTTP on `ADDR`")
	flag.Parse()
	var users, orders balance.Pool
	if err := errors.Join(users.Set(inside("users-1"), inside("users-2")), orders.Set(inside("orders-1"))); err != nil {
		log.Fatal(err)
	}
	srv := &l7.Server{Addr: *addr, Handler: gateway(&users, &orders, nil)}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	drained := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(drained)
		late, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = srv.Shutdown(late)
	})
	fmt.Printf("try: curl -i -u ann:one http://%s/api/users/7\n", *addr)
	if err := srv.ListenAndServe(); !errors.Is(err, l7.ErrServerClosed) {
		log.Fatal(err)
	}
	<-drained // Serve returns when the draining begins
}

// gateway is read from the outside in: what comes first is written first. Connections may be
// nil.
func gateway(users, orders *balance.Pool, connections *l7.Upstream) http.Handler {
	to := func(pool *balance.Pool) *l7.Proxy {
		return &l7.Proxy{Pool: pool, Upstream: connections, TryTimeout: 2 * time.Second, Retry: l7.Retry{
			Classes:  []balance.Class{balance.ConnectFailed, balance.ConnectTimeout, balance.Timeout, balance.Reset, balance.Protocol},
			Statuses: []int{http.StatusServiceUnavailable},
		}}
	}
	return &l7.RequestID{Reply: true, Next: &l7.Monitor{Path: "/alive", Next: &l7.BasicAuth{
		Realm:     "api",
		Verify:    l7.Passwords(map[string]string{"ann": "one", "bob": "two"}),
		UserField: "X-User",
		Next: &l7.Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1), Burst: 5}},
			Key:     func(x *l7.Exchange) (string, bool) { return l7.User(x), true },
			Policy:  "user",
			Next: l7.NewRouter(
				l7.Route{Name: "users", Match: l7.PathPrefix("/api/users"), Handler: to(users)},
				l7.Route{Name: "orders", Match: l7.PathPrefix("/api/orders"), Handler: to(orders)},
			),
		},
	}}}
}

// service answers for one of the services behind the gateway.
func service(name string) http.Handler {
	return http.StripPrefix("/api", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s: %s for %s\n", name, r.URL.Path, r.Header.Get("X-User"))
	}))
}

// inside is a service that lives in this process.
func inside(name string) balance.Endpoint {
	return balance.Endpoint{Name: name, Addr: name + ":80", Value: service(name)}
}
