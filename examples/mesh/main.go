// SPDX-License-Identifier: Apache-2.0

// Mesh is a gateway between workloads with SPIFFE identities, which it gets from the
// Workload API, such as that of a SPIRE agent:
//
//	export SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/sockets/agent.sock
//	go run . -listen :8443 -allow spiffe://example.org/shop -server spiffe://example.org/web -to 10.0.0.1:8443,10.0.0.2:8443
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "`ADDR` to listen on")
	allow := flag.String("allow", "", "`IDS` of clients, with commas between them")
	server := flag.String("server", "", "`ID` of the servers")
	to := flag.String("to", "", "`ADDRS` of the servers, with commas between them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *allow, *server, *to); err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, allow, server, to string, opts ...workloadapi.X509SourceOption) error {
	g := &Gateway{Pool: new(balance.Pool), OnDone: l7.LogTo(slog.Default())}
	var err error
	if g.Server, err = spiffeid.FromString(server); err != nil {
		return fmt.Errorf("-server: %w", err)
	}
	for s := range strings.SplitSeq(allow, ",") {
		id, err := spiffeid.FromString(s)
		if err != nil {
			return fmt.Errorf("-allow: %w", err)
		}
		g.Allow = append(g.Allow, id)
	}
	var endpoints []balance.Endpoint
	for addr := range strings.SplitSeq(to, ",") {
		endpoints = append(endpoints, balance.Endpoint{Addr: addr})
	}
	if err := g.Pool.Set(endpoints...); err != nil {
		return fmt.Errorf("-to: %w", err)
	}
	source, err := workloadapi.NewX509Source(ctx, opts...) // waits for the first SVID
	if err != nil {
		return err
	}
	defer source.Close()
	own, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	g.Source, g.Domain = source, own.ID.TrustDomain()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return g.Serve(ctx, ln)
}
