// SPDX-License-Identifier: Apache-2.0

// Acme serves names over HTTPS with certificates that it gets and renews by ACME, from
// Let's Encrypt unless told otherwise, and forwards requests to servers. By -agree you
// accept the authority's terms.
//
//	go run . -names www.example.com,api.example.com -to http://10.0.0.1:8080 -agree -email admin@example.com
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/caddyserver/certmagic"

	"github.com/penstock-lb/penstock/l7"
)

func main() {
	names := flag.String("names", "", "`NAMES` to serve, with commas between them")
	to := flag.String("to", "http://127.0.0.1:8080", "`URLS` of the servers, with commas between them")
	plain := flag.String("http", ":80", "`ADDR` for HTTP: challenges, and a redirect")
	secure := flag.String("https", ":443", "`ADDR` for HTTPS")
	dir := flag.String("dir", "acme", "`DIR` for keys and certificates")
	ca := flag.String("ca", certmagic.LetsEncryptProductionCA, "`URL` of the authority's directory")
	email := flag.String("email", "", "`ADDRESS` that the authority may write to")
	agree := flag.Bool("agree", false, "accept the terms of the authority")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, &Gateway{
		Names: strings.Split(*names, ","), Handler: l7.To(strings.Split(*to, ",")...), Directory: *ca, Email: *email, Dir: *dir,
	}, *plain, *secure, *agree)
	if err != nil {
		fmt.Fprintln(os.Stderr, "acme:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, g *Gateway, plain, secure string, agree bool) error {
	if !agree || g.Names[0] == "" || g.Email == "" {
		return errors.New("-names, -email and -agree are needed")
	}
	web, err := net.Listen("tcp", plain)
	if err != nil {
		return err
	}
	api, err := net.Listen("tcp", secure)
	if err != nil {
		web.Close()
		return err
	}
	return g.Serve(ctx, web, api)
}
