// SPDX-License-Identifier: Apache-2.0

// Restart is a gateway that is replaced without losing a request: SIGHUP starts
// the program anew, which may be a newer one by then, passes it the listening
// sockets, and ends when its clients have moved over.
//
//	go build ./examples/restart
//	./restart -http 127.0.0.1:8085 -tcp 127.0.0.1:8086 -to 127.0.0.1:8081
//	pkill -HUP restart
//
// The folder systemd has units for it, with sockets that systemd holds and a watchdog:
//
//	systemd-socket-activate -l 127.0.0.1:8085 -l 127.0.0.1:8086 ./restart -http 127.0.0.1:8085 -tcp 127.0.0.1:8086 -to 127.0.0.1:8081
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	g := new(gateway)
	flag.StringVar(&g.http, "http", "127.0.0.1:8085", "serve HTTP on `ADDR`")
	flag.StringVar(&g.tcp, "tcp", "127.0.0.1:8086", "relay TCP on `ADDR`")
	flag.StringVar(&g.to, "to", "127.0.0.1:8081", "send it all to `ADDR`")
	flag.DurationVar(&g.lame, "lame", 5*time.Second, "how long clients are given to notice")
	flag.Parse()
	if err := g.run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

type gateway struct {
	http, tcp, to string
	lame          time.Duration
	restart       l4.Restart
}

// run serves until SIGTERM or SIGINT, or until a successor serves after SIGHUP.
func (g *gateway) run(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	requests, err := g.restart.Listen(ctx, &l4.ListenConfig{DeferAccept: time.Second}, "tcp", g.http)
	if err != nil {
		return err
	}
	streams, err := g.restart.Listen(ctx, nil, "tcp", g.tcp)
	if err != nil {
		return err
	}
	pool := &balance.Pool{Name: "site", Policy: balance.LeastConn{}}
	if err := pool.Set(balance.Endpoint{Addr: g.to}); err != nil {
		return err
	}
	log.Printf("HTTP on %s, TCP on %s; SIGHUP restarts process %d", requests.Addr(), streams.Addr(), os.Getpid())
	web := &l7.Server{Handler: &l7.Proxy{Pool: pool}, LameDuck: g.lame}
	raw := &l4.Server{Handler: &l4.Proxy{Pool: pool}} // nothing is said to clients of TCP
	failed := make(chan error, 2)
	go func() { failed <- web.Serve(requests) }()
	go func() { failed <- raw.Serve(streams) }()
	if err := g.restart.Ready(); err != nil {
		log.Print(err) // it serves, even if systemd does not hear of it
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go g.restart.Watchdog(ctx, func(ctx context.Context) error { return dial(ctx, requests.Addr()) })

	for done := false; !done; {
		select {
		case err := <-failed:
			return err
		case s := <-signals:
			done = s != syscall.SIGHUP || g.handOver(ctx)
		}
	}
	late, stop := context.WithTimeout(ctx, g.lame+30*time.Second) // for long replies and tunnels
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- raw.Shutdown(late) }()
	if err := web.Shutdown(late); err != nil {
		log.Print("requests were cut: ", err)
	}
	if err := <-ended; err != nil {
		log.Print("streams were cut: ", err)
	}
	return nil
}

// handOver reports whether there is a successor that serves.
func (g *gateway) handOver(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := g.restart.HandOver(ctx); err != nil {
		log.Print(err, "; serving on")
		return false
	}
	return true
}

// dial shows that connections are accepted.
func dial(ctx context.Context, to net.Addr) error {
	c, err := new(net.Dialer).DialContext(ctx, to.Network(), to.String())
	if err != nil {
		return err
	}
	return c.Close()
}
