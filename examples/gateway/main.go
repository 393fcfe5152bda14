// SPDX-License-Identifier: Apache-2.0

// Gateway is a first look at penstock. It needs nothing but Go:
//
//	go run ./examples/gateway
//
// It starts three small HTTP servers and a TCP server inside itself, puts a
// gateway with routes, health checks and a rate limit before them, and prints
// what to try next. Ctrl-C drains and ends it.
//
// Read gateway.go for how it is wired.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	g := &Gateway{Out: os.Stdout, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	f := flag.NewFlagSet("gateway", flag.ContinueOnError)
	f.StringVar(&g.HTTP, "http", "127.0.0.1:8080", "serve HTTP on `ADDR`")
	f.StringVar(&g.TCP, "tcp", "127.0.0.1:9000", "relay TCP on `ADDR`")
	f.StringVar(&g.Admin, "admin", "", "serve the page for operators on `ADDR`, to this machine only")
	f.DurationVar(&g.Broken, "broken", 10*time.Second, "how long a server fails that is told to")
	err := f.Parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err == nil && f.NArg() > 0:
		fmt.Fprintf(os.Stderr, "gateway: unexpected argument %q\n", f.Arg(0))
		os.Exit(2)
	case err != nil:
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := g.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}
