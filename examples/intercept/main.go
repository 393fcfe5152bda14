// SPDX-License-Identifier: Apache-2.0

// Intercept ends the TLS of clients under test with certificates that it mints for the
// names they ask for, prints each request, and sends it on to the real server, or to
// another. Clients have to trust its authority, and reach it under those names:
//
//	go run ./examples/intercept -listen 127.0.0.1:8443 -dir ca api.example.com=https://api.example.com
//	curl --cacert ca/ca.pem --connect-to api.example.com:443:127.0.0.1:8443 https://api.example.com/
//
// The key of the authority is as good as the password of all that its clients say: make
// one for a test, and trust it nowhere else.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "`ADDR` to listen on")
	dir := flag.String("dir", "intercept-ca", "`DIR` of the authority, which is made if there is none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "intercept:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, dir string, rules []string) error {
	if len(rules) == 0 {
		return errors.New("name what to intercept: NAME=URL, as in api.example.com=https://api.example.com")
	}
	ca, err := authority(dir)
	if err != nil {
		return err
	}
	s, err := server(ca, rules, l7.LogTo(slog.Default()))
	if err != nil {
		return err
	}
	lc := l4.ListenConfig{}
	ln, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("TLS on %s for %d names; clients have to trust %s/ca.pem\n", ln.Addr(), len(rules), dir)
	return serve(ctx, s, ln)
}

// server returns what intercepts, by rules NAME=URL.
func server(ca tls.Certificate, rules []string, onDone func(*l7.Record)) (*l7.Server, error) {
	var routes []l7.Route
	names := make(map[string]bool)
	for _, rule := range rules {
		name, url, ok := strings.Cut(rule, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=URL", rule)
		}
		name = strings.ToLower(name)
		names[name] = true
		routes = append(routes, l7.Route{Name: name, Match: l7.Host(name), Handler: l7.To(url)})
	}
	router := new(l7.Router)
	if err := router.Set(routes...); err != nil {
		return nil, err
	}
	mint := &Mint{Authority: ca, Allow: func(name string) bool { return names[name] }}
	s := &l7.Server{
		TLSConfig: &tls.Config{GetCertificate: mint.Get},
		JA4:       true, // says which clients are of one make
		Handler:   &l7.Misdirected{Next: router},
		OnDone:    onDone,
	}
	return s, s.Check()
}

// serve serves until ctx ends, and then lets requests end for a while.
func serve(ctx context.Context, s *l7.Server, ln net.Listener) error {
	stopped := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(drain)
	})
	defer stopped()
	if err := s.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return s.Close()
}
