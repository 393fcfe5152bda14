// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-lb/penstock/balance"
)

// lastSpans keeps the last hundred spans, and shows them as text, the latest first.
type lastSpans struct {
	mu   sync.Mutex
	last []sdktrace.ReadOnlySpan
}

func (*lastSpans) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (*lastSpans) ForceFlush(context.Context) error                { return nil }
func (*lastSpans) Shutdown(context.Context) error                  { return nil }

func (l *lastSpans) OnEnd(s sdktrace.ReadOnlySpan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(l.last[max(0, len(l.last)-99):], s)
}

func (l *lastSpans) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	list := slices.Clone(l.last)
	l.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	for _, s := range slices.Backward(list) {
		if s.SpanKind() == trace.SpanKindClient {
			_, _ = fmt.Fprint(w, "    ")
		} else {
			_, _ = fmt.Fprintf(w, "trace %s\n  ", s.SpanContext().TraceID())
		}
		_, _ = fmt.Fprintf(w, "%s %s in %v", s.SpanKind(), s.Name(), s.EndTime().Sub(s.StartTime()))
		for _, a := range s.Attributes() {
			_, _ = fmt.Fprintf(w, " %s=%q", a.Key, a.Value.String())
		}
		_, _ = fmt.Fprintln(w)
	}
}

// servers are what the gateway is before.
type servers []*httptest.Server

// startServers starts two, the second of which fails each other time, and puts them into
// the pool.
func startServers(pool *balance.Pool) (servers, error) {
	var asked atomic.Int64
	all := servers{
		httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintln(w, "one is asked within", r.Header.Get("Traceparent"))
		})),
		httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1)%2 == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = fmt.Fprintln(w, "two is asked within", r.Header.Get("Traceparent"))
		})),
	}
	return all, pool.Set(
		balance.Endpoint{Name: "one", Addr: all[0].Listener.Addr().String()},
		balance.Endpoint{Name: "two", Addr: all[1].Listener.Addr().String()},
	)
}

func (s servers) Close() {
	for _, srv := range s {
		srv.Close()
	}
}
