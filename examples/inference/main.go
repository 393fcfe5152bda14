// SPDX-License-Identifier: Apache-2.0

// Inference is a gateway before servers of a large language model, such as vLLM's: a
// conversation goes to the server that has its beginning in the KV cache, unless that one has
// too much to do, as it says in its metrics. Answers stream. Without -servers it runs four
// fake ones.
//
//	go run ./examples/inference
//	curl -N http://127.0.0.1:8081/v1/chat/completions -d '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/examples/inference/model"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	addr := flag.String("http", "127.0.0.1:8081", "serve HTTP on `ADDR`")
	servers := flag.String("servers", "", "addresses of the servers, by comma; empty means four fake ones")
	policy := flag.String("policy", "scored", "scored, ring or leastconn")
	flag.Parse()
	addrs := strings.Split(*servers, ",")
	if *servers == "" {
		addrs = fakes(4)
	}
	pool, err := newPool(*policy, addrs...)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go poll(ctx, pool, http.DefaultClient, time.Second)
	checks := &health.Checker{Pools: []*balance.Pool{pool}, Probe: health.HTTP{Path: "/health"}}
	go func() { log.Print(checks.Run(ctx)) }()

	srv := &l7.Server{Addr: *addr, Handler: gateway(pool, nil)}
	drained := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(drained)
		late, cancel := context.WithTimeout(context.Background(), time.Minute) // answers are long
		defer cancel()
		_ = srv.Shutdown(late)
	})
	fmt.Printf("serving http://%s from %v\n", *addr, addrs)
	if err := srv.ListenAndServe(); !errors.Is(err, l7.ErrServerClosed) {
		log.Fatal(err)
	}
	<-drained // Serve returns when the draining begins
}

// fakes starts n fake servers and returns their addresses.
func fakes(n int) (addrs []string) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Print(http.Serve(ln, new(model.Server))) }()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs
}
