// SPDX-License-Identifier: Apache-2.0

// Package otel makes spans of OpenTelemetry of what goes through a gateway: one for
// each request that is sampled, and below it one for each try on a server.
//
//	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
//	gateway := &l7.Server{Handler: &otel.Tracing{
//		Tracer: provider.Tracer("gateway"),
//		Share:  0.01,
//		Next:   routes,
//	}}
//
// [Tracing] is a native handler: the byte front stays the byte front. It depends on the
// API of OpenTelemetry alone; the SDK, its exporters and their settings are the host's.
// What is exported in the end also depends on the sampler of the provider, which is asked
// of requests that Tracing lets it see; ParentBased(AlwaysSample), the SDK's own, adds nothing.
//
// # What goes in and out
//
// Context is propagated as W3C Trace Context and W3C Baggage say. A server gets the span
// of its try as its parent. A handler of the gateway's own, a member of a pool in this
// process, and the copies of an [l7.Mirror] get that of the request. A request that is
// not sampled goes on with the traceparent that it came with, or with a new one that
// says so, such that the servers do not sample it either. A traceparent that is malformed
// is replaced, and the tracestate beside it dropped.
//
// # What a span says
//
// Names and attributes are those of the semantic conventions for HTTP, of version 1.37
// or later: http.request.method, http.route (the Name of the [l7.Route]),
// http.response.status_code, error.type and so on. The query is left out, as it may hold
// secrets; [Tracing.Attributes] can add it. What the conventions have no name for:
//
//	penstock.pool, penstock.server   names of the pool and of the server
//	penstock.tries                   requests begun on a server
//	penstock.end                     how it ended, as in HAProxy's logs: see l4.Termination
//	penstock.try.reused              the try went over a connection that was open already
//	penstock.try.hedge               it went on beside another
//	penstock.try.lost                the other was faster
//
// The events "connected" and "first byte" of a try say when its connection, and the head of
// its reply, were there. Texts from outside are made valid UTF-8, without which a
// collector refuses a whole batch, and are cut to 256 bytes.
//
// # Metrics
//
// The figures of a gateway go to OpenTelemetry by way of the collector of
// [github.com/penstock-lb/penstock/l7/prom], of which
// go.opentelemetry.io/contrib/bridges/prometheus makes a producer: they are read when a
// reader of metrics asks, have one set of names wherever they go, and no label from outside.
// See the example. [Tracing] puts the id of its trace into [l7.Record.Trace], for logs and
// for exemplars.
package otel
