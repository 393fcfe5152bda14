// SPDX-License-Identifier: Apache-2.0

// Proxy is the library as one small command: HTTP, HTTPS, TCP and UDP fronts over
// one pool of servers, with health checks.
//
//	go run ./examples/proxy -http :8080 -to 127.0.0.1:8081 -to 127.0.0.1:8082
//
// SIGINT and SIGTERM drain: what is under way has ten seconds to end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	o, err := ParseOptions(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := Run(ctx, o, nil); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}
