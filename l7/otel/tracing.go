// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"math/rand/v2"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l7"
)

// Tracing is a native handler, usually the outermost, that makes spans for the requests
// that it passes to Next. First it decides whether a request is sampled: as its traceparent
// says, or by Share if it has none.
//
// The fields must not change once it serves. It may serve any number of requests at once.
// A request whose head cannot be parsed reaches no handler, and has no span.
type Tracing struct {
	Tracer trace.Tracer // as from Tracer of a TracerProvider
	Next   http.Handler

	// Share of the requests without a trace of their own that are sampled, at random; 0 means all, negative means none
	Share float64

	// Trust matches the requests whose traceparent, tracestate and baggage are used, for
	// example by l7.RemoteIn; nil means all. In other requests they are replaced: a client
	// that is trusted can have each of its requests sampled, at your cost, and add spans to
	// any trace.
	Trust l7.Matcher

	// Attributes returns further attributes for the span of a request; nil means none. It is
	// called at the end of a request that is sampled. Values that a client can choose
	// must be valid UTF-8.
	Attributes func(x *l7.Exchange) []attribute.KeyValue

	key l7.Key[*request]
}

// Check returns what is wrong with t and its handler.
func (t *Tracing) Check() error {
	var m penstock.Mistakes
	m.Need("Tracing.Tracer", t.Tracer, "must be a tracer of a TracerProvider")
	m.Need("Tracing.Next", t.Next, "must be the handler that goes on")
	m.If(!(t.Share <= 1), "Tracing.Share", t.Share, "must be at most 1")
	m.In("Tracing.Trust", t.Trust)
	m.In("Tracing.Next", t.Next)
	return m.Err()
}

// ServeHTTP implements [http.Handler].
func (t *Tracing) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(t, w, r) }

// ServeExchange implements [l7.Handler].
func (t *Tracing) ServeExchange(x *l7.Exchange) {
	trusted := l7.Matches(t.Trust, x)
	var came parent
	if trusted {
		came = parentOf(&x.Header)
	} else {
		x.Header.Del("Baggage")
	}
	switch {
	case came.valid && came.sampled || !came.valid && t.draw():
		t.trace(x, came)
	case !came.valid:
		x.Header.Set("Traceparent", unsampled())
		x.Header.Del("Tracestate")
		fallthrough
	default:
		l7.Serve(t.Next, x)
	}
}

// draw decides, at random, whether to sample a request that belongs to no trace.
func (t *Tracing) draw() bool {
	return t.Share == 0 || t.Share > 0 && rand.Float64() < t.Share
}

// trace serves a request that is sampled.
func (t *Tracing) trace(x *l7.Exchange, came parent) {
	ctx := came.into(x.Context(), &x.Header)
	ctx, span := t.Tracer.Start(ctx, methodName(x.Method), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(x.Record.Start), trace.WithAttributes(requestAttributes(x)...))
	sc := span.SpanContext()
	came.out(&x.Header, sc)
	if !span.IsRecording() { // the sampler of the provider has dropped it
		span.End()
		l7.Serve(t.Next, x)
		return
	}
	x.Record.Trace = sc.TraceID().String()
	r := &request{tracer: t.Tracer, ctx: ctx, span: span, start: x.Record.Start, method: methodName(x.Method), target: targetOf(x)}
	t.key.Set(x, r)
	x.ObserveTries(r)
	returned := false
	defer func() { r.end(t, x, returned) }()
	l7.Serve(t.Next, x)
	returned = true
}

// Context returns the context of x with the span of its request and its baggage, for a
// handler's own spans and for its calls of other services. If the request is not
// sampled, it is the context of x alone.
func (t *Tracing) Context(x *l7.Exchange) context.Context {
	if r, ok := t.key.Get(x); ok {
		return r.ctx
	}
	return x.Context()
}
