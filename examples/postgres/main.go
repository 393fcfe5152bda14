// SPDX-License-Identifier: Apache-2.0

// Postgres splits writes from reads by port: one port leads to the primary, the
// other to the replicas, and to the primary when no replica is left.
//
//	go run ./examples/postgres -write :5432 -read :5433 -primary db1:5432 -replica db2:5432 -replica db3:5432
//	psql -h localhost -p 5433 -c 'select * from orders'
//
// TLS between clients and servers passes through. Connections of a server that
// goes down are cut, so that clients connect again at once rather than wait for
// a timeout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	c := &Cluster{}
	flag.StringVar(&c.Primary, "primary", "127.0.0.1:5432", "`ADDR` of the primary")
	flag.Func("replica", "`ADDR` of a replica; may be repeated", func(s string) error { c.Replicas = append(c.Replicas, s); return nil })
	flag.StringVar(&c.User, "user", "postgres", "user of the health check")
	write := flag.String("write", "127.0.0.1:6432", "`ADDR` to listen on for writes")
	read := flag.String("read", "127.0.0.1:6433", "`ADDR` to listen on for reads")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := listenAndServe(ctx, c, *write, *read); err != nil {
		fmt.Fprintln(os.Stderr, "postgres:", err)
		os.Exit(1)
	}
}

func listenAndServe(ctx context.Context, c *Cluster, write, read string) error {
	w, err := net.Listen("tcp", write)
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := net.Listen("tcp", read)
	if err != nil {
		return err
	}
	defer r.Close()
	fmt.Printf("writes on %s, reads on %s\n", w.Addr(), r.Addr())
	return c.Serve(ctx, w, r)
}

// Serve relays what write and read accept until ctx is done, then gives
// sessions ten seconds to end.
func (c *Cluster) Serve(ctx context.Context, write, read net.Listener) error {
	writes, reads, checker, err := c.fronts()
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	wg.Go(func() { fail(checker.Run(ctx)) })
	wg.Go(func() { fail(writes.Serve(write)) })
	wg.Go(func() { fail(reads.Serve(read)) })
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	wg.Go(func() { _ = writes.Shutdown(drain) })
	wg.Go(func() { _ = reads.Shutdown(drain) })
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) { // a signal is a cause that is Canceled
		return err // a part failed before the context ended
	}
	return nil
}
