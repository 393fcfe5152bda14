// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
)

// A Client talks to a service that has several servers.
type Client struct {
	Servers []string    // "host:port"
	Dial    l4.DialFunc // nil means the network
}

// Run sends n requests, four at once, and writes to out, which may be written
// by several goroutines at once, what failed and what each server got.
func (c *Client) Run(ctx context.Context, out io.Writer, url string, n int) error {
	pool := &balance.Pool{Name: "service", Policy: balance.LeastConn{}}
	var members []balance.Endpoint
	for _, addr := range c.Servers {
		members = append(members, balance.Endpoint{Addr: addr})
	}
	if err := pool.Set(members...); err != nil {
		return err
	}
	checking, stop := context.WithCancel(ctx)
	checker := &health.Checker{Pools: []*balance.Pool{pool}, Probe: health.TCP{Connect: health.Connect{Dial: c.Dial}}, Interval: time.Second}
	var checks sync.WaitGroup
	checks.Go(func() { _ = checker.Run(checking) })
	defer checks.Wait()
	defer stop()

	// A connection keeps its server until it is closed. Connections to a server that goes
	// down are closed at once, and idle ones soon, so that the next request is balanced
	// again.
	dialer := &l4.Dialer{Pool: pool, Dial: c.Dial, CutOnDown: true}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}

	work := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range work {
				if err := get(ctx, client, url); err != nil {
					fmt.Fprintln(out, err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	workers.Wait()
	for s := range pool.All() {
		fmt.Fprintf(out, "%s: %d connections\n", s.Name(), s.Stats().Picks)
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
