// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// fixedOrigin answers every request on a connection with the same bytes, so
// that what is measured is the proxy. It allocates nothing per request.
func fixedOrigin(b *testing.B) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	reply := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 128\r\n\r\n" + string(bytes.Repeat([]byte("x"), 128)))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in, reply := make([]byte, 4096), bytes.Clone(reply)
				second := bytes.Index(reply, []byte("7 GMT"))
				for n := 0; ; {
					m, err := c.Read(in[n:])
					if n += m; err != nil {
						return
					}
					if bytes.HasSuffix(in[:n], []byte("\r\n\r\n")) {
						n = 0
						reply[second] ^= 1 // no two heads in a row are the same
						if _, err := c.Write(reply); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// benchKeepAlive sends one request after the other over one connection.
func benchKeepAlive(b *testing.B, serve func(net.Listener) error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go serve(ln)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	req := []byte("GET /some/path?q=1 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	in := make([]byte, 4096)
	roundTrip := func() {
		req[len("GET /some/path?q=")] ^= 1
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		for n := 0; ; {
			m, err := c.Read(in[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += m
			if i := bytes.Index(in[:n], []byte("\r\n\r\n")); i >= 0 && n >= i+4+128 {
				return
			}
		}
	}
	roundTrip()
	b.ReportAllocs()
	for b.Loop() {
		roundTrip()
	}
}

// BenchmarkProxyKeepAlive is the budget: two allocations a request, the heads
// of request and reply, if they are other ones than last time.
func BenchmarkProxyKeepAlive(b *testing.B) {
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: fixedOrigin(b)}); err != nil {
		b.Fatal(err)
	}
	srv := &l7.Server{Handler: &l7.Proxy{Pool: pool}, OnDone: func(*l7.Record) {}}
	defer srv.Close()
	benchKeepAlive(b, srv.Serve)
}

// BenchmarkReverseProxyKeepAlive is the baseline: net/http on both sides.
func BenchmarkReverseProxyKeepAlive(b *testing.B) {
	to := &url.URL{Scheme: "http", Host: fixedOrigin(b)}
	srv := &http.Server{
		Handler:  &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() }},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	defer srv.Close()
	benchKeepAlive(b, srv.Serve)
}
