// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"context"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/otel"
	"github.com/penstock-lb/penstock/l7/prom"
)

// A collector is a server of OTLP over gRPC that keeps what it gets.
type collector struct {
	collectortrace.UnimplementedTraceServiceServer
	mu      sync.Mutex
	spans   []*traces.Span
	metrics map[string]*metrics.Metric
}

type metricsCollector struct {
	collectormetrics.UnimplementedMetricsServiceServer
	*collector
}

func (c *collector) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

func (c metricsCollector) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rm := range r.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				c.metrics[m.Name] = m
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func newCollector(t *testing.T) (c *collector, addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c = &collector{metrics: make(map[string]*metrics.Metric)}
	srv := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(srv, c)
	collectormetrics.RegisterMetricsServiceServer(srv, metricsCollector{collector: c})
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Stop(); <-served })
	return c, ln.Addr().String()
}

// Spans and metrics of a gateway arrive at an OTLP server over the network, also if a
// client sends bytes that are not UTF-8, for which a whole batch would be refused.
func TestOTLP(t *testing.T) {
	c, addr := newCollector(t)
	traceExporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(addr), otlptracegrpc.WithInsecure())
	require.NoError(t, err)
	metricExporter, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(addr), otlpmetricgrpc.WithInsecure())
	require.NoError(t, err)
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(traceExporter))

	told := make(chan string, 10)
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told <- r.Header.Get("Traceparent") }))
	defer origin.Close()
	pool := &balance.Pool{Name: "web"}
	require.NoError(t, pool.Set(balance.Endpoint{Name: "one", Addr: origin.Listener.Addr().String()}))
	gateway := &l7.Server{Handler: &otel.Tracing{Tracer: provider.Tracer("gateway"), Next: &l7.Proxy{Pool: pool}}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() { defer close(served); _ = gateway.Serve(ln) }()
	defer func() { _ = gateway.Close(); <-served }()

	for _, agent := range []string{"well", "b\xffd"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/a", nil)
		require.NoError(t, err)
		req.Header.Set("User-Agent", agent)
		reply, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_ = reply.Body.Close()
	}
	require.Eventually(t, func() bool {
		st := gateway.Stats()
		return st.Requests.Total() == 2
	}, time.Minute, time.Millisecond) // the span ends before that is counted
	require.NoError(t, provider.Shutdown(t.Context()))

	registry := prometheus.NewRegistry()
	registry.MustRegister(&prom.Collector{Pools: []*balance.Pool{pool}, Servers: map[string]prom.Server{"http": gateway}})
	reader := sdkmetric.NewPeriodicReader(metricExporter, sdkmetric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(registry))))
	require.NoError(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Shutdown(t.Context()))

	c.mu.Lock()
	defer c.mu.Unlock()
	require.Len(t, c.spans, 4)
	byID := make(map[string]*traces.Span)
	for _, s := range c.spans {
		byID[string(s.SpanId)] = s
	}
	for range 2 {
		parent := <-told
		require.Len(t, parent, 55)
		n := 0
		for _, s := range c.spans {
			if parent == "00-"+hex.EncodeToString(s.TraceId)+"-"+hex.EncodeToString(s.SpanId)+"-01" {
				n++
				require.Equal(t, traces.Span_SPAN_KIND_CLIENT, s.Kind)
				require.Equal(t, traces.Span_SPAN_KIND_SERVER, byID[string(s.ParentSpanId)].Kind)
			}
		}
		require.Equal(t, 1, n)
	}
	require.EqualValues(t, 2, sum(c.metrics["penstock_pool_picks_total"].GetSum().GetDataPoints()))
	require.EqualValues(t, 2, c.metrics["penstock_pool_latency_seconds"].GetHistogram().GetDataPoints()[0].Count)
	require.EqualValues(t, 2, sum(c.metrics["penstock_front_requests_total"].GetSum().GetDataPoints()))
}

func sum(points []*metrics.NumberDataPoint) (all float64) {
	for _, p := range points {
		all += p.GetAsDouble()
	}
	return all
}
