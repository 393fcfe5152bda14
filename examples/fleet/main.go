// SPDX-License-Identifier: Apache-2.0

// Fleet is several gateways that work as one: they find their servers, and each other, in etcd, keep
// limits together in Redis, and each uses and checks its part of the servers.
//
//	fleet gateway -name gw-1 -http 127.0.0.1:8081 -etcd 127.0.0.1:2379 -redis 127.0.0.1:6379
//	fleet server -name web-1 -http 127.0.0.1:9001 -etcd 127.0.0.1:2379
//
// To see what that is worth, the program also plays the fleet with real processes. It starts
// redis-server, etcd, twenty servers and three gateways, kills each of them in turn under load,
// and says what was lost, how well the limit held, and how soon all agreed again:
//
//	fleet try
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	name, http, etcd, redis string
}

func run(ctx context.Context, args []string) error {
	var o options
	var short bool
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.StringVar(&o.name, "name", "", "`NAME` of this process in the fleet")
	flags.StringVar(&o.http, "http", "127.0.0.1:0", "serve on `ADDR`")
	flags.StringVar(&o.etcd, "etcd", "127.0.0.1:2379", "find the fleet in the etcd at `ADDR`")
	flags.StringVar(&o.redis, "redis", "127.0.0.1:6379", "keep limits in the Redis at `ADDR`")
	flags.BoolVar(&short, "short", false, "of try: kill only some of the servers")
	if len(args) == 0 {
		return fmt.Errorf("want gateway, server or try")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "gateway":
		return gateway(ctx, o)
	case "server":
		return server(ctx, o)
	case "try":
		r, err := try(ctx, short)
		if err == nil {
			fmt.Print(r)
			err = r.wrong()
		}
		return err
	}
	return fmt.Errorf("%q is none of gateway, server and try", args[0])
}
