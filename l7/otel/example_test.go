// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/otel"
	"github.com/penstock-lb/penstock/l7/prom"
)

func ExampleTracing() {
	spans := tracetest.NewInMemoryExporter() // in a gateway: otlptracegrpc.New(ctx), and WithBatcher
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))

	pool := &balance.Pool{Name: "web", Policy: balance.RoundRobin{}}
	_ = pool.Set(balance.Endpoint{Name: "member", Addr: "member:1", Value: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello") })})
	gateway := &otel.Tracing{
		Tracer: provider.Tracer("gateway"),
		Attributes: func(x *l7.Exchange) []attribute.KeyValue {
			return []attribute.KeyValue{attribute.String("tenant", x.Record.User)}
		},
		Next: l7.NewRouter(l7.Route{Name: "pages", Handler: &l7.Proxy{Pool: pool}}),
	}

	request := httptest.NewRequest("GET", "http://shop.example/cart", nil)
	request.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	gateway.ServeHTTP(httptest.NewRecorder(), request)

	for _, s := range slices.Backward(spans.GetSpans()) {
		fmt.Println(s.SpanKind, s.Name, "of trace", s.SpanContext.TraceID())
	}
	// Output:
	// server GET pages of trace 4bf92f3577b34da6a3ce929d0e0e4736
	// client GET of trace 4bf92f3577b34da6a3ce929d0e0e4736
}

// The figures of a gateway go to OpenTelemetry as they go to Prometheus.
func Example_metrics() {
	pool := &balance.Pool{Name: "web"}
	_ = pool.Set(balance.Endpoint{Name: "one", Addr: "10.0.0.1:80"}, balance.Endpoint{Name: "two", Addr: "10.0.0.2:80"})

	registry := prometheus.NewRegistry()
	registry.MustRegister(&prom.Collector{Pools: []*balance.Pool{pool}, PoolsOnly: true})
	figures := bridge.NewMetricProducer(bridge.WithGatherer(registry))
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(figures)) // in a gateway: NewPeriodicReader(exporter, ...)
	_ = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))

	var got metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &got); err != nil {
		fmt.Println(err)
	}
	for _, m := range got.ScopeMetrics[0].Metrics {
		if g, ok := m.Data.(metricdata.Gauge[float64]); ok && m.Name == "penstock_pool_usable_servers" {
			fmt.Println(m.Name, g.DataPoints[0].Value)
		}
	}
	// Output:
	// penstock_pool_usable_servers 2
}
