// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/otel"
)

func TestServerGetsTheSpanOfItsTryAsParent(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		return l7.NewRouter(l7.Route{Name: "pages", Handler: w.proxy("10.1.0.1:80")})
	}, func(w *world) {
		_, body := w.get("/a?secret=1", "Traceparent", sampled, "Tracestate", "a=1", "Tracestate", "b=2", "Baggage", "user=u1")
		spans := w.take()
		require.Len(w, spans, 2)
		require.Equal(w, parentLine(spans[1])+"Tracestate: a=1,b=2\nBaggage: user=u1\n", body)
		require.Equal(w, parentTrace, spans[0].SpanContext.TraceID().String())
		require.Equal(w, "00f067aa0ba902b7", spans[0].Parent.SpanID().String())
		require.True(w, spans[0].Parent.IsRemote())
		proto := map[l7.Front]string{l7.FrontByte: "1.1", l7.FrontHTTP2: "2", l7.FrontStandard: "1.1"}[w.front]
		require.Equal(w, []string{
			"server GET pages status_code=200 server=10.1.0.1:80 version=" + proto,
			"client GET status_code=200 server=10.1.0.1:80 version=1.1 reused=false",
		}, lines(spans))
		require.Equal(w, "http", spans[0].attr("url.scheme"))
		require.Equal(w, "/a", spans[0].attr("url.path"))
		require.Equal(w, "10.0.0.1", spans[0].attr("server.address"))
		require.Equal(w, "pages", spans[0].attr("http.route"))
		require.Equal(w, "web", spans[0].attr("penstock.pool"))
		require.Equal(w, "http://10.0.0.1/a", spans[1].attr("url.full"))
		require.Equal(w, "10.1.0.1", spans[1].attr("server.address"))
		require.Equal(w, "80", spans[1].attr("server.port"))
		for _, s := range spans {
			for _, a := range s.Attributes {
				require.NotContains(w, a.Value.String(), "secret")
			}
		}
		var events []string
		for _, e := range spans[1].Events {
			events = append(events, e.Name)
			require.False(w, e.Time.Before(spans[1].StartTime) || e.Time.After(spans[1].EndTime))
		}
		require.Equal(w, []string{"connected", "first byte"}, events)
		w.get("/a", "Traceparent", sampled)
		require.Equal(w, "true", w.take()[1].attr("penstock.try.reused"))
	})
}

func TestRequestWithoutATraceBeginsOne(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		return w.proxy("10.1.0.1:80")
	}, func(w *world) {
		for _, bad := range []string{
			"", "x", strings.ToUpper(sampled), "ff" + sampled[2:], sampled + "-x", "00-" + strings.Repeat("0", 32) + sampled[35:],
			sampled[:36] + strings.Repeat("0", 16) + "-01", sampled[:54], "00_" + sampled[3:], "0g" + sampled[2:], "01" + sampled[2:] + "x",
		} {
			_, body := w.get("/", "Traceparent", bad, "Tracestate", "a=1")
			spans := w.take()
			require.Len(w, spans, 2, bad)
			require.Equal(w, parentLine(spans[1]), body, bad)
			require.False(w, spans[0].Parent.IsValid(), bad)
			require.NotEqual(w, parentTrace, spans[0].SpanContext.TraceID().String(), bad)
		}
		w.get("/", "Traceparent", sampled, "Traceparent", sampled)
		require.False(w, w.take()[0].Parent.IsValid(), "two are none")
		w.get("/", "Traceparent", "01"+sampled[2:]+"-more")
		require.True(w, w.take()[0].Parent.IsValid(), "a later version is read as far as it is known")
	})
}

func TestUnsampledRequestHasNoSpanAndTellsServersSo(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		w.tracing.Share = -1
		return w.proxy("10.1.0.1:80")
	}, func(w *world) {
		_, body := w.get("/", "Traceparent", notSampled, "Tracestate", "a=1", "Baggage", "user=u1")
		require.Equal(w, "Traceparent: "+notSampled+"\nTracestate: a=1\nBaggage: user=u1\n", body)
		_, body = w.get("/", "Tracestate", "a=1")
		require.Regexp(w, `^Traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00\n$`, body)
		_, again := w.get("/")
		require.NotEqual(w, body, again)
		require.Empty(w, w.take())
		w.get("/", "Traceparent", sampled)
		require.Len(w, w.take(), 2, "the client has decided")
	})
}

func TestShareOfRequestsIsSampled(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.tracing.Share = 0.25
		return l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") })
	}, func(w *world) {
		for range 1000 {
			w.get("/")
		}
		n := len(w.spans.GetSpans())
		require.True(w, n > 170 && n < 330, n) // more than five standard deviations
	})
}

func TestStrangersDoNotDecide(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		w.tracing.Share = -1
		w.tracing.Trust = l7.Header{Name: "X-Ours"}
		return w.proxy("10.1.0.1:80")
	}, func(w *world) {
		_, body := w.get("/", "Traceparent", sampled, "Tracestate", "a=1", "Baggage", "user=admin")
		require.Empty(w, w.take())
		require.Regexp(w, `^Traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00\n$`, body)
		require.NotContains(w, body, parentTrace)
		w.get("/", "Traceparent", sampled, "X-Ours", "yes")
		require.Len(w, w.take(), 2)
	})
}

func TestRetryHasASpanForEachTry(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.2:80", func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(503) })
		w.origin("10.1.0.3:80", told)
		p := w.proxy("10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80")
		p.Retry = l7.Retry{Tries: 3, Statuses: []int{503}}
		return p
	}, func(w *world) {
		_, body := w.get("/")
		spans := w.take()
		require.Equal(w, []string{
			"client GET error_type=connect_failed server=10.1.0.1:80 reused=false ERROR",
			"client GET status_code=503 error_type=503 server=10.1.0.2:80 resend_count=1 version=1.1 reused=false ERROR",
			"client GET status_code=200 server=10.1.0.3:80 resend_count=2 version=1.1 reused=false",
		}, strings.Split(strings.ReplaceAll(strings.Join(lines(spans[1:]), "\n"), " type=", " error_type="), "\n"))
		require.Equal(w, parentLine(spans[3]), body)
		require.Equal(w, "3", spans[0].attr("penstock.tries"))
		require.NotEmpty(w, spans[1].Status.Description)
	})
}

func TestHedgeHasASpanOfItsOwn(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		w.origin("10.1.0.2:80", told)
		p := w.proxy("10.1.0.1:80", "10.1.0.2:80")
		p.Hedge.Delay = time.Second
		return p
	}, func(w *world) {
		_, body := w.get("/")
		spans := w.take()
		require.Equal(w, []string{
			"client GET server=10.1.0.1:80 version=1.1 reused=false lost=true",
			"client GET status_code=200 server=10.1.0.2:80 resend_count=1 version=1.1 reused=false hedge=true",
		}, lines(spans[1:]))
		require.Equal(w, parentLine(spans[2]), body)
		require.Equal(w, time.Second, spans[2].StartTime.Sub(spans[1].StartTime).Round(time.Microsecond))
	})
}

func TestMirrorGetsTheSpanOfTheRequest(t *testing.T) {
	copies := make(chan string, 1)
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		w.origin("10.1.0.9:80", func(_ http.ResponseWriter, r *http.Request) { copies <- r.Header.Get("Traceparent") })
		p := w.proxy("10.1.0.1:80")
		p.Mirror = &l7.Mirror{To: w.proxy("10.1.0.9:80")}
		w.Cleanup(p.Mirror.Wait)
		return p
	}, func(w *world) {
		w.get("/")
		spans := w.take()
		require.Len(w, spans, 2)
		require.Equal(w, parentLine(spans[0]), "Traceparent: "+<-copies+"\n")
	})
}

func TestTracingOverHTTP2ToServers(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told, "h2c")
		p := w.proxy("10.1.0.1:80")
		p.Upstream.Protocols = new(http.Protocols)
		p.Upstream.Protocols.SetUnencryptedHTTP2(true)
		return p
	}, func(w *world) {
		_, body := w.get("/", "Traceparent", sampled)
		spans := w.take()
		require.Equal(w, parentLine(spans[1]), body)
		require.Equal(w, "client GET status_code=200 server=10.1.0.1:80 version=2 reused=false", spans[1].String())
	})
}

func TestSpanOfAnUpgradeEndsWithIt(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", func(rw http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%s", r.Header.Get("Traceparent"))
			time.Sleep(time.Minute)
			_ = c.Close()
		})
		return w.proxy("10.1.0.1:80")
	}, func(w *world) {
		if w.front == l7.FrontHTTP2 {
			return // this client has no extended CONNECT
		}
		c, err := w.net.DialContext(w.Context(), "tcp", "10.0.0.1:80")
		require.NoError(w, err)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		reply, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(w, err)
		require.Equal(w, 101, reply.StatusCode)
		require.Empty(w, w.take())
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
		spans := w.take()
		require.Len(w, spans, 2)
		for _, s := range spans {
			require.Equal(w, "101", s.attr("http.response.status_code"))
			require.Equal(w, time.Minute, s.EndTime.Sub(s.StartTime).Round(time.Microsecond))
			require.Empty(w, s.attr("error.type"))
		}
	})
}

func TestRefusedRequestHasASpan(t *testing.T) {
	onFronts(t, func(*world) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) { x.Error(403, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}) })
	}, func(w *world) {
		status, _ := w.get("/")
		require.Equal(w, 403, status)
		spans := w.take()
		require.Len(w, spans, 1)
		require.Equal(w, "PR", spans[0].attr("penstock.end"))
		require.Empty(w, spans[0].attr("error.type"), "it is the client's doing")
	})
}

func TestFailedRequestIsAnError(t *testing.T) {
	onFronts(t, func(w *world) http.Handler { return w.proxy("10.1.0.1:80") }, func(w *world) {
		status, _ := w.get("/")
		require.Equal(w, 502, status)
		require.Equal(w, "502", w.take()[0].attr("error.type"))
	})
}

func TestReplyThatIsCutIsAnErrorOfBothSpans(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(rw, "half")
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		})
		return w.proxy("10.1.0.1:80")
	}, func(w *world) {
		w.get("/")
		spans := w.take()
		require.Len(w, spans, 2)
		require.Equal(w, "server_aborted", spans[0].attr("error.type"))
		require.Equal(w, "reset", spans[1].attr("error.type"))
	})
}

func TestPanicEndsTheSpanAsAnError(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		p := w.proxy("10.1.0.1:80")
		return l7.HandlerFunc(func(x *l7.Exchange) {
			if x.Path == "/editor" {
				x.OnReply(l7.ReplyFunc(func(*l7.Exchange, *l7.Reply) { panic(http.ErrAbortHandler) }))
				l7.Serve(p, x)
			}
			panic(http.ErrAbortHandler)
		})
	}, func(w *world) {
		w.get("/")
		require.Equal(w, "panic", w.take()[0].attr("error.type"))
		w.get("/editor")
		spans := w.take()
		require.Len(w, spans, 2, "the try ends as well")
		require.Equal(w, "panic", spans[0].attr("error.type"))
	})
}

func TestCallsOfGRPCAreTraced(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/grpc")
			rw.Header().Set("Grpc-Status", "14")
		}, "h2c")
		p := w.proxy("10.1.0.1:80")
		p.Upstream.Protocols = new(http.Protocols)
		p.Upstream.Protocols.SetUnencryptedHTTP2(true)
		return p
	}, func(w *world) {
		w.get("/pkg.Service/Method", "Method", "POST", "Content-Type", "application/grpc", "Te", "trailers")
		spans := w.take()
		require.Len(w, spans, 2)
		require.Equal(w, "/pkg.Service/Method", spans[0].attr("url.path"))
		require.Equal(w, "200", spans[1].attr("http.response.status_code"))
		if w.front == l7.FrontHTTP2 { // gRPC is only that over HTTP/2
			require.Equal(w, "status_error", spans[1].attr("error.type"))
			require.Equal(w, "14", spans[0].attr("rpc.grpc.status_code"))
			require.Equal(w, "14", spans[0].attr("error.type"))
		}
	})
}

// A handler of net/http, and what it calls, are part of the trace.
func TestSandwichIsOneTrace(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.origin("10.1.0.1:80", told)
		p := w.proxy("10.1.0.1:80")
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Inside", r.Header.Get("Traceparent"))
			p.ServeHTTP(rw, r)
		})
	}, func(w *world) {
		_, body := w.get("/")
		spans := w.take()
		require.Len(w, spans, 2)
		require.Equal(w, parentLine(spans[1]), body)
	})
}

func TestTextsFromOutsideAreValidAndShort(t *testing.T) {
	onFronts(t, func(*world) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") })
	}, func(w *world) {
		w.get("/"+strings.Repeat("a", 5000), "User-Agent", "bad \xff\xfe agent", "Method", "BREW")
		s := w.take()[0]
		require.Equal(w, "HTTP", s.Name)
		require.Equal(w, "_OTHER", s.attr("http.request.method"))
		require.Equal(w, "BREW", s.attr("http.request.method_original"))
		require.Len(w, s.attr("url.path"), 256)
		require.Equal(w, "bad \uFFFD agent", s.attr("user_agent.original"))
		w.get("/", "User-Agent", strings.Repeat("a", 255)+"é")
		require.Equal(w, strings.Repeat("a", 255), w.take()[0].attr("user_agent.original"))
		w.get("/", "User-Agent", strings.Repeat("a", 254)+"éé")
		require.Equal(w, strings.Repeat("a", 254)+"é", w.take()[0].attr("user_agent.original"))
	})
}

func TestHandlersHaveTheContextOfTheSpan(t *testing.T) {
	onFronts(t, func(w *world) http.Handler {
		w.tracing.Attributes = func(x *l7.Exchange) []attribute.KeyValue {
			return []attribute.KeyValue{attribute.Int("status", x.Record.Status)}
		}
		return l7.HandlerFunc(func(x *l7.Exchange) {
			ctx := w.tracing.Context(x)
			trace.SpanFromContext(ctx).SetAttributes(attribute.String("user", baggage.FromContext(ctx).Member("user").Value()))
			x.Respond(200, nil, x.Record.Trace)
		})
	}, func(w *world) {
		_, body := w.get("/", "Traceparent", sampled, "Baggage", "user=u1")
		require.Equal(w, parentTrace, body)
		s := w.take()[0]
		require.Equal(w, "u1", s.attr("user"))
		require.Equal(w, "200", s.attr("status"))
		_, body = w.get("/", "Traceparent", notSampled)
		require.Empty(w, body)
	})
}

func TestTracingNamesItsMistakes(t *testing.T) {
	err := (&otel.Tracing{Share: 2, Trust: l7.RemoteIn{netip.Prefix{}}, Next: &l7.Proxy{}}).Check()
	for _, field := range []string{"Tracing.Tracer", "Tracing.Share", "Tracing.Trust", "Tracing.Next.Proxy.Pool"} {
		require.ErrorContains(t, err, field)
	}
	var e *penstock.ConfigError
	require.ErrorAs(t, err, &e)
	require.ErrorContains(t, new(otel.Tracing).Check(), "Tracing.Next")
}

// The bytes of a request that is not sampled, over the byte front.
func serveLoop(b testing.TB, h http.Handler, head string) func() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	srv := &l7.Server{Handler: h}
	go func() { _ = srv.Serve(ln) }()
	b.Cleanup(func() { _ = srv.Close() })
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	in := []byte(head)
	buf := make([]byte, 4096)
	return func() {
		if _, err := c.Write(in); err != nil {
			b.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || n == 0 {
			b.Fatal(n, err)
		}
	}
}
