// SPDX-License-Identifier: Apache-2.0

// Observe is a gateway with all that operators look at: the page, metrics for Prometheus
// with exemplars, and traces of OpenTelemetry, which are shown as text and sent to a
// collector if there is one. One of its two servers fails now and then, so that there is
// something to see. It is a module of its own, for the clients of Prometheus and
// OpenTelemetry:
//
//	cd examples/observe
//	go run . -otlp 127.0.0.1:4317
//	curl http://127.0.0.1:8080/
//	curl http://127.0.0.1:9090/traces
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/l7/otel"
	"github.com/penstock-lb/penstock/l7/prom"
)

func main() {
	addr := flag.String("http", "127.0.0.1:8080", "serve HTTP on `ADDR`")
	ops := flag.String("ops", "127.0.0.1:9090", "serve the page, /metrics and /traces on `ADDR`, to this machine only")
	otlp := flag.String("otlp", "", "send traces to the collector at `ADDR`, by gRPC in plain text")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *addr, *ops, *otlp); err != nil {
		fmt.Fprintln(os.Stderr, "observe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, addr, ops, otlp string) error {
	spans := new(lastSpans)
	options := []sdktrace.TracerProviderOption{sdktrace.WithSpanProcessor(spans)}
	if otlp != "" {
		exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(otlp), otlptracegrpc.WithInsecure())
		if err != nil {
			return err
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	provider := sdktrace.NewTracerProvider(options...)
	defer provider.Shutdown(context.WithoutCancel(ctx))

	pool := &balance.Pool{Name: "web", Policy: balance.RoundRobin{}}
	servers, err := startServers(pool)
	if err != nil {
		return err
	}
	defer servers.Close()
	upstream := new(l7.Upstream)
	routes := l7.NewRouter(l7.Route{Name: "pages", Handler: &l7.Proxy{Pool: pool, Upstream: upstream, Retry: l7.Retry{Statuses: []int{503}}}})
	gateway := &l7.Server{Handler: &otel.Tracing{Tracer: provider.Tracer("gateway"), Next: routes}}
	figures := &prom.Collector{
		Pools: []*balance.Pool{pool}, Routers: map[string]*l7.Router{"public": routes},
		Servers: map[string]prom.Server{"http": gateway}, Upstreams: []*l7.Upstream{upstream},
	}
	gateway.OnDone = figures.Note
	registry := prometheus.NewRegistry()
	registry.MustRegister(figures)
	page := &admin.Handler{
		Title: "observe", Pools: figures.Pools, Routers: figures.Routers, Upstreams: figures.Upstreams,
		Servers: map[string]admin.Server{"http": gateway}, Allow: admin.Local,
	}
	mux := http.NewServeMux()
	mux.Handle("/", page)
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.Handle("/traces", spans)
	operators := &http.Server{Handler: mux}
	operators.RegisterOnShutdown(page.Close)
	return serve(ctx, out, map[string]served{addr: {"gateway", gateway}, ops: {"for operators", operators}})
}

// A server is *http.Server or *l7.Server.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

type served struct {
	name string
	server
}

// serve serves all at their addresses until ctx ends.
func serve(ctx context.Context, out io.Writer, all map[string]served) error {
	ended := make(chan error, len(all))
	for addr, s := range all {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: http://%s/\n", s.name, ln.Addr())
		go func() { ended <- s.Serve(ln) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	for _, s := range all {
		err = errors.Join(err, s.Shutdown(context.WithoutCancel(ctx)))
	}
	return err
}
