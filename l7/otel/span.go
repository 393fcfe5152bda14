// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// A request is the span of an exchange, with those of its tries in progress.
type request struct {
	tracer trace.Tracer
	ctx    context.Context // of its exchange, for spans below
	span   trace.Span
	start  time.Time
	method string
	target target

	mu    sync.Mutex
	going []going
}

type going struct {
	try  *l7.Try
	span trace.Span
}

// BeginTry implements [l7.TryObserver].
func (r *request) BeginTry(t *l7.Try) {
	_, span := r.tracer.Start(r.ctx, r.method, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(r.start.Add(t.Assigned)), trace.WithAttributes(tryAttributes(r, t)...))
	if sc := span.SpanContext(); sc.IsValid() {
		t.Header.Set("Traceparent", formatSpan(sc))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.going = append(r.going, going{t, span})
}

// EndTry implements [l7.TryObserver].
func (r *request) EndTry(t *l7.Try) {
	span := r.take(t)
	if span == nil || !span.IsRecording() {
		return
	}
	if t.Connected > 0 {
		span.AddEvent("connected", trace.WithTimestamp(r.start.Add(t.Connected)))
	}
	if t.FirstByte > 0 {
		span.AddEvent("first byte", trace.WithTimestamp(r.start.Add(t.FirstByte)))
	}
	span.SetAttributes(triedAttributes(t)...)
	if what := tryError(t); what != "" {
		span.SetAttributes(attribute.String("error.type", what))
		text := ""
		if t.Outcome.Err != nil {
			text = clean(t.Outcome.Err.Error())
		}
		span.SetStatus(codes.Error, text)
	}
	span.End()
}

func (r *request) take(t *l7.Try) trace.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, g := range r.going {
		if g.try == t {
			r.going[i] = r.going[len(r.going)-1]
			r.going = r.going[:len(r.going)-1]
			return g.span
		}
	}
	return nil
}

// tryError returns the error.type of a try, or "" if it did not fail. By the conventions for
// clients a reply of 400 or more is a failure; to be slower than another try is none.
func tryError(t *l7.Try) string {
	switch {
	case t.Lost:
		return ""
	case t.Status >= 400 && (t.Outcome.Class == balance.OK || t.Outcome.Class == balance.StatusError):
		return formatStatus(t.Status)
	case t.Outcome.Class == balance.OK:
		return ""
	}
	return word(t.Outcome.Class.String())
}

// end ends the span of the request. Returned is false if a handler has panicked, or ended
// its goroutine.
func (r *request) end(t *Tracing, x *l7.Exchange, returned bool) {
	defer r.span.End()
	rec := &x.Record
	if rec.Route != "" {
		r.span.SetName(r.method + " " + clean(rec.Route))
	}
	r.span.SetAttributes(endAttributes(rec)...)
	if t.Attributes != nil && returned {
		r.span.SetAttributes(t.Attributes(x)...)
	}
	what := ""
	switch c := rec.Termination.Cause; {
	case !returned:
		what = "panic"
	case rec.Status >= http.StatusInternalServerError:
		what = formatStatus(rec.Status)
	case grpcFailed(rec.GRPCStatus):
		what = rec.GRPCStatus
	case c == l4.ServerAborted, c == l4.ServerTimeout, c == l4.Resource, c == l4.Internal, c == l4.ServerDown:
		what = word(c.String())
	default:
		return
	}
	r.span.SetAttributes(attribute.String("error.type", what))
	text := ""
	if rec.Err != nil {
		text = clean(rec.Err.Error())
	}
	r.span.SetStatus(codes.Error, text)
}
