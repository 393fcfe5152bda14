// SPDX-License-Identifier: Apache-2.0

// Proxy is the library as one small command: HTTP, HTTPS, TCP and UDP fronts over
// one pool of servers, with health checks.
//
//	go run ./examples/proxy -http :8080 -to 127.0.0.1:8081 -to 127.0.0.1:8082
//	go run ./examples/proxy -http :8080 -to h2c://127.0.0.1:50051 -to https://example.net:443
//
// SIGINT and SIGTERM drain: work in progress has ten seconds to end.
//
// It is built with a profile of itself, default.pgo (https://go.dev/doc/pgo),
// which .ci/profile makes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
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
	profiled := func() {}
	if o.CPUProfile != "" {
		if profiled, err = profile(o.CPUProfile); err != nil {
			fmt.Fprintln(os.Stderr, "proxy: -cpuprofile:", err)
			os.Exit(1)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err = Run(ctx, o, nil)
	profiled()
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// profile profiles the program until the func that it returns is called.
func profile(file string) (stop func(), err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "proxy: -cpuprofile:", err)
		}
	}, nil
}
