// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// everyWay runs do over both fronts, with servers of HTTP/1 and HTTP/2, and with
// clients of HTTP/2 as well where the front has it.
func everyWay(t *testing.T, set func(p *l7.Proxy), do func(t *testing.T, f *front, h2server bool)) {
	for _, h2server := range []bool{false, true} {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, one)
			if h2server {
				p.Upstream.Protocols = protocols("h2c")
			}
			if set != nil {
				set(p)
			}
			return p
		}
		name := fmt.Sprint("HTTP/2 server ", h2server)
		t.Run(name, func(t *testing.T) {
			fronts(t, site, func(t *testing.T, f *front) { do(t, f, h2server) })
			t.Run("HTTP/2 client", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
						f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
						do(t, f, h2server)
					})
				})
			})
			t.Run("HTTP/2 http.Server", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { hostsHTTP2(t, site, func(t *testing.T, f *front) { do(t, f, h2server) }) })
			})
		})
	}
}

// hostsHTTP2 is standardFront over HTTP/2.
func hostsHTTP2(t *testing.T, site func(n *l4test.Network) http.Handler, do func(t *testing.T, f *front)) {
	f := newFront("http.Server")
	f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
	next := site(f.network)
	srv := &http.Server{Protocols: protocols("h2c"), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: l7.HandlerFunc(func(x *l7.Exchange) {
		defer func() { f.record(&x.Record) }()
		l7.Serve(next, x)
	})}
	f.run(t, srv.Serve, srv.Close, do)
}

// Streams may be quiet for long, before their head as well, without a setting:
// server-sent events and gRPC. Other replies may not, but a long poll of 45 s may.
func TestStreamsMayBeQuiet(t *testing.T) {
	for _, tc := range []struct {
		name        string
		accept      string
		typ         string // of the request
		reply       string // its type
		head        time.Duration
		quiet       time.Duration
		whole       bool
		termination string
	}{
		{"events", "text/event-stream", "", "text/event-stream; charset=utf-8", 0, 50 * time.Minute, true, "--"},
		{"events whose head comes late", "text/event-stream", "", "text/event-stream", 50 * time.Minute, 50 * time.Minute, true, "--"},
		{"events unasked", "*/*", "", "text/event-stream", 0, 50 * time.Minute, true, "--"},
		{"gRPC", "", "application/grpc", "application/grpc", 0, 50 * time.Minute, true, "--"},
		{"gRPC whose head comes late", "", "application/grpc+proto", "application/grpc+proto", 50 * time.Minute, 50 * time.Minute, true, "--"},
		{"gRPC-Web", "", "application/grpc-web", "application/grpc-web", 50 * time.Minute, 50 * time.Minute, true, "--"},
		{"a long poll", "application/json", "", "application/json", 45 * time.Second, 45 * time.Second, true, "--"},
		{"another", "text/html, text/event-stream", "application/grpcish", "text/plain", 0, 2 * time.Minute, false, "sD"},
		{"events for too long", "text/event-stream", "", "text/event-stream", 0, 2 * time.Hour, false, "sD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			everyWay(t, nil, func(t *testing.T, f *front, h2server bool) {
				startOrigin(t, f.network, one, nil, h2server, func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(tc.head):
					case <-r.Context().Done():
					}
					w.Header().Set("Content-Type", tc.reply)
					io.WriteString(w, "first ")
					w.(http.Flusher).Flush()
					select {
					case <-time.After(tc.quiet):
					case <-r.Context().Done():
					}
					io.WriteString(w, "second")
				})
				for range 2 { // over a new connection, and over one that is reused
					req, _ := http.NewRequest("GET", "http://a.test/", nil)
					req.Header.Set("Accept", tc.accept)
					req.Header.Set("Content-Type", tc.typ)
					res, err := f.client.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(res.Body)
					res.Body.Close()
					if whole := res.StatusCode == 200 && string(b) == "first second" && err == nil; whole != tc.whole {
						t.Errorf("got %d %q, %v: %v", res.StatusCode, b, err, f.last(t).Err)
					}
					if r := f.last(t); r.Termination.String() != tc.termination {
						t.Errorf("ended with %v, %v; want %s", r.Termination, r.Err, tc.termination)
					}
				}
			})
		})
	}
}

// A client of gRPC may be quiet in the middle of its call; other requests end.
func TestQuietRequestBodies(t *testing.T) {
	for _, tc := range []struct {
		typ  string
		want string
	}{{"application/grpc", "200 onetwo"}, {"text/plain", "408"}} {
		everyWay(t, nil, func(t *testing.T, f *front, h2server bool) {
			startOrigin(t, f.network, one, nil, h2server, func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				w.Write(b)
			})
			pr, pw := io.Pipe()
			go func() {
				io.WriteString(pw, "one")
				time.Sleep(50 * time.Minute)
				io.WriteString(pw, "two")
				pw.Close()
			}()
			req, _ := http.NewRequest("POST", "http://a.test/", pr)
			req.Header.Set("Content-Type", tc.typ)
			start := time.Now()
			res, err := f.client.Do(req)
			if err != nil {
				if tc.want != "408" {
					t.Errorf("%s: %v after %v", tc.typ, err, time.Since(start))
				}
			} else {
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if got := fmt.Sprint(res.StatusCode, " ", string(b)); !strings.HasPrefix(got, tc.want) {
					t.Errorf("%s: got %s; want %s: %v", tc.typ, got, tc.want, f.last(t).Err)
				}
			}
			time.Sleep(time.Hour)
		})
	}
}

// StreamTimeout bounds streams by proxy and by server, unless the host has set
// what bounds all.
func TestStreamTimeoutOfEvents(t *testing.T) {
	for _, tc := range []struct {
		server, proxy, body, want time.Duration
	}{
		{0, 0, 0, time.Hour},
		{0, 5 * time.Minute, 0, 5 * time.Minute},
		{5 * time.Minute, 10 * time.Minute, 0, 5 * time.Minute},
		{0, 5 * time.Minute, 10 * time.Minute, 10 * time.Minute},
		{-1, -1, 0, 0},
		{0, 0, -1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				p := newProxy(n, one)
				p.StreamTimeout, p.BodyTimeout = tc.proxy, tc.body
				return p
			}
			byteFront(t, site, &l7.Server{StreamTimeout: tc.server}, func(t *testing.T, f *front) {
				origin(t, f.network, one, l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"), l7test.Wait(5 * time.Hour), l7test.Close()})
				c := f.dial(t).send(getA)
				start := time.Now()
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.ReadAll(res.Body)
				d, want := time.Since(start), tc.want
				if want == 0 {
					want = 5 * time.Hour
				}
				if d < want || d > want+want/4 || (err == nil) != (tc.want == 0) {
					t.Errorf("%+v: ended after %v, %v; want %v", tc, d, err, want)
				}
			})
		})
	}
}
