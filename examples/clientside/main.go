// SPDX-License-Identifier: Apache-2.0

// Clientside balances without a balancer in between: the pool is the
// DialContext of an http.Transport. It fetches a URL again and again and says
// who answered.
//
//	go run ./examples/clientside -to 127.0.0.1:8081 -to 127.0.0.1:8082 -n 100 http://orders/status
//
// The host in the URL only names the service; database drivers and Redis
// clients that take a DialContext are given the same function.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := &Client{}
	flag.Func("to", "`ADDR` of a server; may be repeated", func(s string) error { c.Servers = append(c.Servers, s); return nil })
	n := flag.Int("n", 20, "how many requests, four at once")
	flag.Parse()
	if flag.NArg() != 1 || len(c.Servers) == 0 {
		fmt.Fprintln(os.Stderr, "clientside: name a URL, and at least one server by -to")
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.Run(ctx, os.Stdout, flag.Arg(0), *n); err != nil {
		fmt.Fprintln(os.Stderr, "clientside:", err)
		os.Exit(1)
	}
}
