// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/otel"
)

func costCases() []struct {
	name, head string
	h          http.Handler
} {
	answer := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })
	none := &otel.Tracing{Tracer: sdktrace.NewTracerProvider().Tracer("bench"), Share: -1, Next: answer}
	const bare, end = "GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: b\r\nAccept: */*\r\n", "\r\n"
	return []struct {
		name, head string
		h          http.Handler
	}{
		{"without", bare + end, answer},
		{"unsampled", bare + end, none},
		{"unsampled with a traceparent", bare + "Traceparent: " + notSampled + "\r\n" + end, none},
		{"sampled", bare + "Traceparent: " + sampled + "\r\n" + end, none},
	}
}

func TestUnsampledRequestCostsAtMostTwoAllocations(t *testing.T) {
	var without float64
	for _, c := range costCases()[:3] {
		step := serveLoop(t, c.h, c.head)
		step()
		n := testing.AllocsPerRun(1000, step)
		if c.name == "without" {
			without = n
		}
		require.LessOrEqual(t, n-without, 2.0, c.name)
		t.Logf("%s: %v", c.name, n)
	}
}

func BenchmarkTracing(b *testing.B) {
	for _, c := range costCases() {
		b.Run(c.name, func(b *testing.B) {
			step := serveLoop(b, c.h, c.head)
			step()
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

// What Tracing itself adds to a request that is not sampled, without a network.
func BenchmarkUnsampled(b *testing.B) {
	for _, came := range []string{"", notSampled} {
		name := "new trace"
		if came != "" {
			name = "trace of the client"
		}
		b.Run(name, func(b *testing.B) {
			none := &otel.Tracing{
				Tracer: sdktrace.NewTracerProvider().Tracer("bench"), Share: -1, Next: l7.HandlerFunc(func(*l7.Exchange) {}),
			}
			loop := l7.HandlerFunc(func(x *l7.Exchange) {
				b.ReportAllocs()
				for b.Loop() {
					if came == "" {
						x.Header.Del("Traceparent")
					}
					none.ServeExchange(x)
				}
				x.Respond(200, nil, "")
			})
			head := "GET / HTTP/1.1\r\nHost: a.example\r\n"
			if came != "" {
				head += "Traceparent: " + came + "\r\n"
			}
			serveLoop(b, loop, head+"\r\n")()
		})
	}
}
