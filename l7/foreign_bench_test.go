// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// allowOrigin is what middleware for CORS does to a request that is allowed.
func allowOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if o := r.Header.Get("Origin"); o != "" {
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			h.Set("Access-Control-Allow-Origin", o)
		}
		next.ServeHTTP(w, r)
	})
}

type benchKey struct{}

// statusWriter is how middleware that measures or logs looks at a reply.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// traced is what middleware for traces does: another context, another writer.
func traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{w, 200}
		next.ServeHTTP(sw, r.WithContext(context.WithValue(r.Context(), benchKey{}, sw)))
	})
}

// mux is a router of net/http around.
func mux(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), benchKey{}, "route")))
	})
}

// BenchmarkForeign is what middleware of net/http around a Proxy costs, under
// both servers, beside the native tree and the proxy of net/http.
func BenchmarkForeign(b *testing.B) {
	origin := fixedOrigin(b)
	for _, m := range []struct {
		name string
		wrap func(http.Handler) http.Handler
	}{
		{"native", func(h http.Handler) http.Handler { return &l7.Capture{Next: h} }},
		{"cors", allowOrigin},
		{"crossorigin", http.NewCrossOriginProtection().Handler},
		{"router", mux},
		{"traced", traced},
		{"all", func(h http.Handler) http.Handler { return mux(allowOrigin(traced(h))) }},
	} {
		pool := &balance.Pool{}
		if err := pool.Set(balance.Endpoint{Addr: origin}); err != nil {
			b.Fatal(err)
		}
		h := m.wrap(&l7.Proxy{Pool: pool})
		if m.name != "native" {
			b.Run("l7.Server/Wrap/"+m.name, func(b *testing.B) {
				srv := &l7.Server{Handler: &l7.Wrap{With: m.wrap, Next: &l7.Proxy{Pool: pool}}, Logger: slog.New(slog.DiscardHandler)}
				defer srv.Close()
				benchKeepAlive(b, srv.Serve)
			})
		}
		b.Run("l7.Server/"+m.name, func(b *testing.B) {
			srv := &l7.Server{Handler: h, Logger: slog.New(slog.DiscardHandler)}
			defer srv.Close()
			benchKeepAlive(b, srv.Serve)
		})
		b.Run("http.Server/"+m.name, func(b *testing.B) {
			srv := &http.Server{Handler: h}
			defer srv.Close()
			benchKeepAlive(b, func(ln net.Listener) error { return srv.Serve(ln) })
		})
	}
	b.Run("http.Server/ReverseProxy", func(b *testing.B) {
		to := &url.URL{Scheme: "http", Host: origin}
		srv := &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() }}}
		defer srv.Close()
		benchKeepAlive(b, srv.Serve)
	})
}
