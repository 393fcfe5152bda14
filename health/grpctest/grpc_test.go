// SPDX-License-Identifier: Apache-2.0

// Package grpctest puts health.GRPC before grpc-go, in a module of its own, so
// that the library does not depend on it.
package grpctest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// says probes addr once and compares what the probe says.
func says(t *testing.T, situation string, p health.GRPC, addr, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := "ok"
	if err := p.Probe(ctx, balance.Endpoint{Addr: addr}); err != nil {
		got = fmt.Sprintf("%v / %v", health.CodeOf(err), err)
	}
	t.Logf("%-28s %s", situation, got)
	if got != want {
		t.Errorf("%s: got %q; want %q", situation, got, want)
	}
}

// serve serves s on a free port and returns the address.
func serve(t *testing.T, s *grpc.Server) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

func TestGRPC(t *testing.T) {
	s, h := grpc.NewServer(), grpchealth.NewServer()
	healthpb.RegisterHealthServer(s, h)
	addr := serve(t, s)
	says(t, "healthy", health.GRPC{}, addr, "ok")
	says(t, "unknown service", health.GRPC{Service: "shop.Cart"}, addr, "bad status / gRPC: service unknown")
	h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
	says(t, "known service", health.GRPC{Service: "shop.Cart"}, addr, "ok")
	h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_NOT_SERVING)
	says(t, "starting up", health.GRPC{Service: "shop.Cart"}, addr, "bad status / gRPC: NOT_SERVING")
	says(t, "the server as a whole", health.GRPC{}, addr, "ok")
	h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_UNKNOWN)
	says(t, "it does not know itself", health.GRPC{Service: "shop.Cart"}, addr, "bad status / gRPC: serving status 0")
	h.Shutdown()
	says(t, "shutting down", health.GRPC{}, addr, "bad status / gRPC: NOT_SERVING")
	s.Stop()
	says(t, "stopped", health.GRPC{}, addr, "connect refused / connect: connection refused")

	says(t, "no health service", health.GRPC{}, serve(t, grpc.NewServer()), "protocol error / gRPC: the server has no health service")
}

func TestGRPCAuth(t *testing.T) {
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["authorization"]) == 0 {
			return nil, status.Error(codes.Unauthenticated, "no token, 100%")
		}
		if _, ok := ctx.Deadline(); !ok {
			return nil, status.Error(codes.Internal, "no deadline")
		}
		return next(ctx, req)
	}))
	healthpb.RegisterHealthServer(s, grpchealth.NewServer())
	addr := serve(t, s)
	says(t, "refuses", health.GRPC{}, addr, "not authorized / gRPC: status 16 no token, 100%")
	says(t, "with metadata", health.GRPC{Header: map[string][]string{"Authorization": {"Bearer x"}}}, addr, "ok")
}

func TestGRPCSilent(t *testing.T) {
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	healthpb.RegisterHealthServer(s, grpchealth.NewServer())
	addr := serve(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := health.GRPC{}.Probe(ctx, balance.Endpoint{Addr: addr})
	if want := "HTTP/2: no answer within 300ms"; health.CodeOf(err) != health.CodeTimeout || err.Error() != want {
		t.Errorf("got %v: %v; want %s", health.CodeOf(err), err, want)
	}
	t.Logf("%-28s %v", "silent", err)
}

func TestGRPCTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: web.TLS.Certificates})))
	healthpb.RegisterHealthServer(s, grpchealth.NewServer())
	addr := serve(t, s)
	says(t, "over TLS", health.GRPC{Connect: health.Connect{TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}}}, addr, "ok")
	says(t, "TLS to a clear server", health.GRPC{Connect: health.Connect{TLS: &tls.Config{RootCAs: roots}}}, serve(t, grpc.NewServer()), "protocol error / TLS: the answer is not TLS")
	says(t, "in the clear to TLS", health.GRPC{}, addr, "closed / HTTP/2: connection closed")
}
