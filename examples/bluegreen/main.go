// SPDX-License-Identifier: Apache-2.0

// Bluegreen moves traffic from one release to the next: a share of the new
// clients goes to green, and a sealed cookie keeps each client where it began.
//
//	go run ./examples/bluegreen
//	curl -i http://127.0.0.1:8082/                     # blue, and a cookie
//	curl -X PUT 'http://127.0.0.1:8083/?green=50'      # half of the new clients
//	curl -X PUT 'http://127.0.0.1:8083/?green=100'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	addr := flag.String("http", "127.0.0.1:8082", "serve HTTP on `ADDR`")
	admin := flag.String("admin", "127.0.0.1:8083", "take orders on `ADDR`")
	flag.Parse()
	site, orders := releases()
	front := &l7.Server{Addr: *addr, Handler: site}
	back := &l7.Server{Addr: *admin, Handler: orders}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 2)
	for _, srv := range []*l7.Server{front, back} {
		go func() { failed <- srv.ListenAndServe() }()
	}
	fmt.Printf("try: curl -i http://%s/ and curl -X PUT 'http://%s/?green=50'\n", *addr, *admin)
	select {
	case err := <-failed:
		log.Fatal(err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(front.Shutdown(late), back.Shutdown(late)); err != nil {
		log.Fatal(err)
	}
}

// releases returns the site and the handler that moves it.
func releases() (site, orders http.Handler) {
	blue, green := release("blue"), release("green")
	arms := func(percent int) []l7.Arm {
		return []l7.Arm{{Name: "blue", Weight: 100 - percent, Handler: blue}, {Name: "green", Weight: percent, Handler: green}}
	}
	split := l7.NewSplit(arms(0)...)
	split.Cookie = "release"
	return split, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		percent, err := strconv.Atoi(r.FormValue("green"))
		if r.Method != http.MethodPut || err != nil || percent < 0 || percent > 100 {
			http.Error(w, "PUT /?green=0..100", http.StatusBadRequest)
			return
		}
		split.Set(arms(percent)...)
		fmt.Fprintf(w, "%d%% of the new clients go to green\n", percent)
	})
}

// release is a pool of one server that lives in this process.
func release(name string) *l7.Proxy {
	p := &balance.Pool{Name: name}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, name) })
	if err := p.Set(balance.Endpoint{Addr: name + ":80", Value: h}); err != nil {
		log.Fatal(err)
	}
	return &l7.Proxy{Pool: p}
}
