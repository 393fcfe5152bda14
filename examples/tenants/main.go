// SPDX-License-Identifier: Apache-2.0

// Tenants gives each tenant a host of its own, and its own limit. The table is
// a file that is read again on SIGHUP and takes effect at once, between two
// requests; a file with a mistake in it changes nothing.
//
//	printf 'acme.example 100\nzeta.example 2\n' > tenants.txt
//	go run ./examples/tenants -file tenants.txt
//	curl -H 'Host: acme.example' http://127.0.0.1:8084/
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

func main() {
	addr := flag.String("http", "127.0.0.1:8084", "serve HTTP on `ADDR`")
	file := flag.String("file", "tenants.txt", "lines of `host requests-per-second`")
	flag.Parse()
	var router l7.Router
	if err := reload(&router, *file); err != nil {
		log.Fatalf("-file: %v; it has lines such as: acme.example 100", err)
	}
	log.Printf("HTTP on %s; SIGHUP reads %s again", *addr, *file)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	srv := &l7.Server{Addr: *addr, Handler: &router}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	for {
		select {
		case <-hangup:
			if err := reload(&router, *file); err != nil {
				log.Printf("the old table stays: %v", err)
			}
		case err := <-failed:
			log.Fatal(err)
		case <-ctx.Done():
			late, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = srv.Shutdown(late)
			return
		}
	}
}

func reload(r *l7.Router, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return load(r, f)
}

// load replaces the table of r by what the text says.
func load(r *l7.Router, text io.Reader) error {
	var routes []l7.Route
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		var host string
		var rate int
		if _, err := fmt.Sscanf(lines.Text(), "%s %d", &host, &rate); err != nil {
			return fmt.Errorf("%q is not host and rate: %w", lines.Text(), err)
		}
		h, err := tenant(host, rate)
		if err != nil {
			return err
		}
		routes = append(routes, l7.Route{Name: host, Match: l7.Host(host), Handler: h})
	}
	return errors.Join(lines.Err(), r.Set(routes...))
}

// tenant is a pool of one server, which lives in this process, and its limit.
func tenant(host string, rate int) (http.Handler, error) {
	p := &balance.Pool{Name: host}
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "the app of", host) })
	return &l7.Limit[string]{
		Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(rate)}, Max: 16},
		Key:     func(*l7.Exchange) (string, bool) { return host, true },
		Next:    &l7.Proxy{Pool: p},
	}, p.Set(balance.Endpoint{Addr: host + ":80", Value: app})
}
