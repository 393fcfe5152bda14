// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/otel"
)

const (
	parentTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampled     = "00-" + parentTrace + "-00f067aa0ba902b7-01"
	notSampled  = "00-" + parentTrace + "-00f067aa0ba902b7-00"
)

// A world is a gateway that traces, in memory and in virtual time.
type world struct {
	*testing.T
	front   l7.Front
	net     *l4test.Network
	spans   *tracetest.InMemoryExporter
	tracing *otel.Tracing
	client  *http.Client
}

// onFronts tells a story on the byte front, over HTTP/2 and under an http.Server. Build
// returns what is traced.
func onFronts(t *testing.T, build func(w *world) http.Handler, story func(w *world)) {
	for _, front := range []l7.Front{l7.FrontByte, l7.FrontHTTP2, l7.FrontStandard} {
		t.Run(front.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{T: t, front: front, net: l4test.NewNetwork(), spans: tracetest.NewInMemoryExporter()}
				provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(w.spans))
				w.tracing = &otel.Tracing{Tracer: provider.Tracer("test")}
				w.tracing.Next = build(w)
				require.NoError(t, w.tracing.Check())
				w.serve()
				story(w)
			})
		})
	}
}

// serve serves at 10.0.0.1.
func (w *world) serve() {
	ln, err := w.net.Listen("tcp", "10.0.0.1:80")
	require.NoError(w, err)
	done := make(chan error, 1)
	var stop func(context.Context) error
	if w.front == l7.FrontStandard {
		srv := &http.Server{Handler: w.tracing}
		stop = srv.Shutdown
		go func() { done <- srv.Serve(ln) }()
	} else {
		srv := &l7.Server{Handler: w.tracing}
		stop = srv.Shutdown
		go func() { done <- srv.Serve(ln) }()
	}
	tr := &http.Transport{DialContext: w.net.DialContext, DisableCompression: true}
	if w.front == l7.FrontHTTP2 {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	w.client = &http.Client{Transport: tr}
	w.Cleanup(func() {
		tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(w, stop(ctx))
		require.ErrorIs(w, <-done, http.ErrServerClosed)
	})
}

// origin starts a server that answers with h.
func (w *world) origin(addr string, h http.HandlerFunc, protocols ...string) {
	ln, err := w.net.Listen("tcp", addr)
	require.NoError(w, err)
	p := new(http.Protocols)
	p.SetHTTP1(!slices.Contains(protocols, "h2c"))
	p.SetUnencryptedHTTP2(slices.Contains(protocols, "h2c"))
	srv := &http.Server{Handler: h, Protocols: p}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	w.Cleanup(func() { _ = srv.Close(); <-done })
}

func (w *world) proxy(addrs ...string) *l7.Proxy {
	pool := &balance.Pool{Name: "web", Policy: balance.RoundRobin{}}
	var list []balance.Endpoint
	for _, a := range addrs {
		list = append(list, balance.Endpoint{Addr: a})
	}
	require.NoError(w, pool.Set(list...))
	up := &l7.Upstream{Dial: w.net.DialContext}
	w.Cleanup(up.CloseIdle)
	return &l7.Proxy{Pool: pool, Upstream: up}
}

// get returns status and body; fields are names and values.
func (w *world) get(target string, fields ...string) (int, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "http://10.0.0.1"+target, nil)
	require.NoError(w, err)
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Method" {
			req.Method = fields[i+1]
			continue
		}
		req.Header.Add(fields[i], fields[i+1])
	}
	reply, err := w.client.Do(req)
	if err != nil {
		return 0, ""
	}
	defer reply.Body.Close()
	body, _ := io.ReadAll(reply.Body)
	synctest.Wait()
	return reply.StatusCode, string(body)
}

// told answers with what of a trace a server was told.
func told(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Millisecond)
	for _, name := range []string{"Traceparent", "Tracestate", "Baggage"} {
		for _, v := range r.Header.Values(name) {
			_, _ = fmt.Fprintf(w, "%s: %s\n", name, v)
		}
	}
}

// A span is one that has ended, for comparison.
type span struct {
	tracetest.SpanStub
}

func (s span) attr(key string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// String returns kind, name, status and those attributes that tell how it ended.
func (s span) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.SpanKind, s.Name)
	for _, key := range []string{"http.response.status_code", "error.type", "penstock.server", "http.request.resend_count", "network.protocol.version", "penstock.try.reused", "penstock.try.hedge", "penstock.try.lost"} {
		if v := s.attr(key); v != "" {
			fmt.Fprintf(&b, " %s=%s", key[strings.LastIndexByte(key, '.')+1:], v)
		}
	}
	if s.Status.Code == codes.Error {
		b.WriteString(" ERROR")
	}
	return b.String()
}

// take returns the spans that have ended since it was last called, that of the request
// first, and checks that those of tries are its children and lie within it.
func (w *world) take() []span {
	w.Helper()
	synctest.Wait()
	var list []span
	for _, s := range w.spans.GetSpans() {
		list = append(list, span{s})
	}
	w.spans.Reset()
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b span) int {
		if k := int(a.SpanKind) - int(b.SpanKind); k != 0 {
			return k
		}
		return a.StartTime.Compare(b.StartTime)
	})
	for _, s := range list[1:] {
		require.Equal(w, list[0].SpanContext.SpanID(), s.Parent.SpanID())
		require.False(w, s.StartTime.Before(list[0].StartTime) || s.EndTime.After(list[0].EndTime), "a try outside of its request")
	}
	return list
}

func lines(spans []span) []string {
	var all []string
	for _, s := range spans {
		all = append(all, s.String())
	}
	return all
}

func parentLine(s span) string {
	return fmt.Sprintf("Traceparent: 00-%s-%s-01\n", s.SpanContext.TraceID(), s.SpanContext.SpanID())
}
