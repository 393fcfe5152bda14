// SPDX-License-Identifier: Apache-2.0

// HTTP3 is a gateway that serves one port over TCP and over QUIC, and tells the clients of
// HTTP/1 and HTTP/2 by Alt-Svc that there is HTTP/3. It is its own client, too:
//
//	go run . -to 10.0.0.1:80,10.0.0.2:80 -cert cert.pem -key key.pem
//	go run . -get https://127.0.0.1:8443/ -ca cert.pem
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/h3"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "serve `ADDR`, both its TCP and its UDP port")
	cert := flag.String("cert", "cert.pem", "`FILE` of the certificate")
	key := flag.String("key", "key.pem", "`FILE` of its key")
	to := flag.String("to", "127.0.0.1:8080", "`ADDRS` of the servers, with commas between them")
	get := flag.String("get", "", "do not serve, but get `URL` by HTTP/3")
	ca := flag.String("ca", "cert.pem", "`FILE` of the certificates that -get trusts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := error(nil)
	if *get != "" {
		err = fetch(ctx, *get, *ca, os.Stdout)
	} else {
		err = serve(ctx, *listen, *cert, *key, strings.Split(*to, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "http3:", err)
		os.Exit(1)
	}
}

// serve serves until ctx ends, and then what has begun.
func serve(ctx context.Context, addr, cert, key string, to []string) error {
	pool := new(balance.Pool)
	var servers []balance.Endpoint
	for _, addr := range to {
		servers = append(servers, balance.Endpoint{Addr: addr})
	}
	if err := pool.Set(servers...); err != nil {
		return fmt.Errorf("-to: %w", err)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return fmt.Errorf("-cert and -key: %w", err)
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		return errors.Join(fmt.Errorf("-listen: %w", err), tcp.Close())
	}
	_, port, _ := net.SplitHostPort(tcp.Addr().String())
	gateway := &l7.Server{Handler: &l7.Proxy{Pool: pool}}
	front := &h3.Front{Server: gateway, AltSvc: `h3=":` + port + `"; ma=3600`}
	fmt.Printf("https://%s, over TCP and QUIC\n", tcp.Addr())
	ended := make(chan error, 2)
	go func() { ended <- gateway.ServeTLS(tcp, cert, key) }()
	go func() { ended <- front.ServeTLS(udp, cert, key) }()
	select {
	case err = <-ended: // before it was asked to
		return errors.Join(err, gateway.Close())
	case <-ctx.Done():
		return gateway.Shutdown(context.Background()) // front's connections, too
	}
}
