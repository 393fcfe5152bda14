// SPDX-License-Identifier: Apache-2.0

// Routes is a gateway with as many routes as one likes, to one pool. Package bench
// measures it, because examples/proxy has none.
package main

import (
	"flag"
	"fmt"
	"log"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	addr := flag.String("http", "", "serve HTTP on `ADDR`")
	n := flag.Int("routes", 10, "`NUMBER` of routes, /r0 and on")
	var to []balance.Endpoint
	flag.Func("to", "a server, `HOST:PORT`", func(s string) error {
		to = append(to, balance.Endpoint{Addr: s})
		return nil
	})
	flag.Parse()
	pool := &balance.Pool{Name: "servers", Policy: balance.RoundRobin{}}
	if err := pool.Set(to...); err != nil {
		log.Fatal(err)
	}
	proxy := &l7.Proxy{Pool: pool}
	routes := make([]l7.Route, *n)
	for i := range routes {
		routes[i] = l7.Route{Match: l7.PathPrefix(fmt.Sprintf("/r%d", i)), Handler: proxy}
	}
	gateway := &l7.Server{Addr: *addr, Handler: l7.NewRouter(routes...)}
	log.Fatal(gateway.ListenAndServe())
}
