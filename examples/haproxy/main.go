// SPDX-License-Identifier: Apache-2.0

// Haproxy is the HAProxy configuration you know, in Go. The README beside it
// shows both sides. It starts small servers inside itself, so it runs as it
// is:
//
//	go run ./examples/haproxy
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, "127.0.0.1:8085", "127.0.0.1:5433", demo()); err != nil {
		log.Fatal(err)
	}
}

// run is the whole gateway: two fronts, two pools, their checks.
func run(ctx context.Context, web, db string, at servers) error {
	pools, err := newPools(at)
	if err != nil {
		return err
	}
	webFront := &l7.Server{Handler: webSite(pools), ReadHeaderTimeout: 5 * time.Second}
	dbFront := &l4.Server{Handler: database(pools), MaxConns: 2000}
	checks := []*health.Checker{webCheck(pools), dbCheck(pools)}

	webLn, err := net.Listen("tcp", web)
	if err != nil {
		return err
	}
	dbLn, err := net.Listen("tcp", db)
	if err != nil {
		webLn.Close()
		return err
	}
	fmt.Printf("HTTP on %s, the database on %s\n", webLn.Addr(), dbLn.Addr())
	failed := make(chan error, 4)
	go func() { failed <- webFront.Serve(webLn) }()
	go func() { failed <- dbFront.Serve(dbLn) }()
	checking, stopChecks := context.WithCancel(context.Background()) // they go on until the servers are told to stop
	defer stopChecks()
	for _, c := range checks {
		go func() { failed <- c.Run(checking) }()
	}
	running := cap(failed)
	select {
	case <-ctx.Done():
	case err = <-failed:
		running--
	}
	stopChecks()
	late, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(err, webFront.Shutdown(late), dbFront.Shutdown(late))
	for range running {
		<-failed
	}
	return err
}

// servers are where the members of the pools listen.
type servers struct {
	web, static []string
	primary     string
	standby     string
}

// demo starts such servers in this process; they end with it.
func demo() servers {
	website := func(name string) string {
		ln := listen()
		go func() {
			_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, name, r.URL.Path) }))
		}()
		return ln.Addr().String()
	}
	database := func(name string) string {
		ln := listen()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name+"\n")
				_ = c.Close()
			}
		}()
		return ln.Addr().String()
	}
	return servers{
		web: []string{website("web1"), website("web2")}, static: []string{website("static1")},
		primary: database("primary"), standby: database("standby"),
	}
}

func listen() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return ln
}
