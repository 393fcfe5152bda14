// SPDX-License-Identifier: Apache-2.0

// Package otel makes OpenTelemetry spans for the requests of a gateway: one for each
// request that is sampled, and one below it for each try on a server.
//
//	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
//	gateway := &l7.Server{Handler: &otel.Tracing{
//		Tracer: provider.Tracer("gateway"),
//		Share:  0.01,
//		Next:   routes,
//	}}
//
// [Tracing] is a native handler, so requests stay on the byte front. The package imports
// the API of OpenTelemetry only: the host chooses the SDK, its exporters and their settings.
// Of the requests that Tracing samples, the sampler of the provider may drop some; that of
// the SDK, ParentBased(AlwaysSample), drops none.
//
// # What goes in and out
//
// Context is propagated as W3C Trace Context and W3C Baggage say. A server gets the span
// of its try as its parent. The gateway's own handlers, members of a pool in this process,
// and the copies of an [l7.Mirror] get the span of the request. A request that is not
// sampled is forwarded with the traceparent that it came with, or else with a new one whose
// sampled flag is off, so that the servers do not sample it either. A malformed traceparent
// is replaced, and its tracestate is dropped.
//
// # What is in a span
//
// Names and attributes are those of the semantic conventions for HTTP, of version 1.37
// or later: http.request.method, http.route (the Name of the [l7.Route]),
// http.response.status_code, error.type and so on; those for RPC give a call of gRPC its
// rpc.grpc.status_code. The query is left out, as it may hold secrets; [Tracing.Attributes]
// can add it. Attributes that the conventions do not have:
//
//	penstock.pool, penstock.server   names of the pool and of the server
//	penstock.tries                   requests begun on a server
//	penstock.end                     how it ended, as in HAProxy's logs: see l4.Termination
//	penstock.try.reused              the try went over a connection that was open already
//	penstock.try.hedge               it ran at the same time as another
//	penstock.try.lost                the other replied first
//
// The events "connected" and "first byte" of a try say when its connection was ready, and
// when the head of its reply arrived. Text from clients and servers is made valid UTF-8,
// since a collector refuses a whole batch for one that is not, and is cut to 256 bytes.
//
// # Metrics
//
// Metrics come from the Collector of [github.com/penstock-lb/penstock/l7/prom], which
// go.opentelemetry.io/contrib/bridges/prometheus turns into a metric producer, as in the
// example. They are read when a metric reader collects, have the same names as in
// Prometheus, and no label that a client can choose. [Tracing] puts the id of its trace into [l7.Record.Trace], for logs and
// for exemplars.
//
// # Dependencies
//
// It is a module of its own. Besides penstock it brings go.opentelemetry.io/otel and
// go.opentelemetry.io/otel/trace, and what these depend on: cespare/xxhash. The SDK and the
// exporters in its go.mod are for its tests and its example.
package otel
