// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// Whatever a time limit ends says which one it was, by the name of its field.
func TestTimeoutsSayWhichTheyAre(t *testing.T) {
	const (
		begun  = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
		events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"
		half   = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe"
	)
	stall := l7test.Script{l7test.Stall()}
	big := l7test.Script{l7test.Reply(200, strings.Repeat("x", 4<<20))}
	for _, tc := range []struct {
		name  string
		set   func(s *l7.Server, p *l7.Proxy)
		do    l7test.Script
		send  string
		field string
		limit time.Duration
	}{
		{"head", func(_ *l7.Server, p *l7.Proxy) { p.HeaderTimeout = 7 * time.Second }, stall, getA, "Proxy.HeaderTimeout", 7 * time.Second},
		{"head, by default", nil, stall, getA, "Proxy.HeaderTimeout", time.Minute},
		{"try", func(_ *l7.Server, p *l7.Proxy) { p.TryTimeout = 7 * time.Second }, stall, getA, "Proxy.TryTimeout", 7 * time.Second},
		{"all", func(_ *l7.Server, p *l7.Proxy) { p.Timeout = 7 * time.Second }, stall, getA, "Proxy.Timeout", 7 * time.Second},
		{"all, in the body", func(_ *l7.Server, p *l7.Proxy) { p.Timeout = 7 * time.Second }, l7test.Script{l7test.Send(begun), l7test.Stall()}, getA, "Proxy.Timeout", 7 * time.Second},
		{"body", func(_ *l7.Server, p *l7.Proxy) { p.BodyTimeout = 7 * time.Second }, l7test.Script{l7test.Send(begun), l7test.Stall()}, getA, "Proxy.BodyTimeout", 7 * time.Second},
		{"stream", func(_ *l7.Server, p *l7.Proxy) { p.StreamTimeout = 7 * time.Minute }, l7test.Script{l7test.Send(events), l7test.Stall()}, getA, "Proxy.StreamTimeout", 7 * time.Minute},
		{"stream, by the server", func(s *l7.Server, _ *l7.Proxy) { s.StreamTimeout = 7 * time.Minute }, l7test.Script{l7test.Send(events), l7test.Stall()}, getA, "Server.StreamTimeout", 7 * time.Minute},
		{"head of a stream", nil, stall, "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n", "Proxy.StreamTimeout", time.Hour},
		{"tunnel", func(_ *l7.Server, p *l7.Proxy) { p.StreamTimeout = 7 * time.Minute }, l7test.Script{l7test.Tunnel("websocket")}, upgradeA, "Proxy.StreamTimeout", 7 * time.Minute},
		{"connect", func(_ *l7.Server, p *l7.Proxy) { p.Upstream.ConnectTimeout = 7 * time.Second }, nil, getA, "Upstream.ConnectTimeout", 7 * time.Second},
		{"connect, in a try", func(_ *l7.Server, p *l7.Proxy) { p.TryTimeout = time.Second }, nil, getA, "Proxy.TryTimeout", time.Second},
		{"request head", func(s *l7.Server, _ *l7.Proxy) { s.ReadHeaderTimeout = 7 * time.Second }, nil, "GET / HTT", "Server.ReadHeaderTimeout", 7 * time.Second},
		{"request body", func(s *l7.Server, _ *l7.Proxy) { s.BodyTimeout = 7 * time.Second }, stall, half, "Server.BodyTimeout", 7 * time.Second},
		{"request body of gRPC", nil, stall, strings.Replace(half, "Host", "Content-Type: application/grpc\r\nHost", 1), "Server.StreamTimeout", time.Hour},
		{"reply", func(s *l7.Server, _ *l7.Proxy) { s.SendTimeout = 7 * time.Second }, big, getA, "Server.SendTimeout", 7 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := new(l7.Server)
				site := func(n *l4test.Network) http.Handler {
					p := newProxy(n, one)
					p.Retry.Tries = 1
					if tc.set != nil {
						tc.set(srv, p)
					}
					return p
				}
				byteFront(t, site, srv, func(t *testing.T, f *front) {
					origin(t, f.network, one, tc.do)
					if strings.HasPrefix(tc.name, "connect") {
						f.network.Drop("tcp", one)
					}
					c := f.dial(t).send(tc.send)
					time.Sleep(2 * time.Hour)
					wantTimeout(t, f.last(t).Err, tc.field, tc.limit)
					c.Close()
				})
			})
		})
	}
}

func wantTimeout(t *testing.T, err error, field string, limit time.Duration) {
	t.Helper()
	te, ok := errors.AsType[*l7.TimeoutError](err)
	if !ok || te.Field != field || te.Limit != limit || !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), field) {
		t.Errorf("error %v; want %s of %v", err, field, limit)
	}
}

// The same over HTTP/2, on either side.
func TestHTTP2TimeoutsSayWhichTheyAre(t *testing.T) {
	for _, tc := range []struct {
		name  string
		reply http.HandlerFunc
		typ   string
		size  int
		quiet time.Duration // of the client, in the middle of its body
		field string
		limit time.Duration
	}{
		{"head", func(w http.ResponseWriter, r *http.Request) {}, "", 0, 0, "Proxy.HeaderTimeout", time.Minute},
		{"body", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, "", 0, 0, "Proxy.BodyTimeout", time.Minute},
		{"stream", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.(http.Flusher).Flush()
		}, "", 0, 0, "Proxy.StreamTimeout", time.Hour},
		{"head of gRPC", func(w http.ResponseWriter, r *http.Request) {}, "application/grpc", 0, 0, "Proxy.StreamTimeout", time.Hour},
		{"request body that is not taken", func(w http.ResponseWriter, r *http.Request) {}, "", 8 << 20, 0, "Proxy.BodyTimeout", time.Minute},
		{"request body that does not come", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, "", 10, 3 * time.Hour, "Server.BodyTimeout", 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, proxyH2(func(p *l7.Proxy) { p.Retry.Tries = 1 }), new(l7.Server), func(t *testing.T, f *front) {
					f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
					startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
						tc.reply(w, r)
						<-r.Context().Done()
					})
					pr, pw := io.Pipe()
					go func() {
						io.WriteString(pw, strings.Repeat("x", tc.size))
						time.Sleep(tc.quiet)
						pw.Close()
					}()
					req, _ := http.NewRequest("POST", "http://a.test/", pr)
					req.Header.Set("Content-Type", tc.typ)
					res, err := f.client.Do(req)
					if err == nil {
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					wantTimeout(t, f.last(t).Err, tc.field, tc.limit)
					pr.Close()
					time.Sleep(4 * time.Hour)
				})
			})
		})
	}
}

func TestTransportTimeoutsSayWhichTheyAre(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		origin(t, n, one, l7test.Script{l7test.Stall()})
		tr.HeaderTimeout = 7 * time.Second
		_, err := tr.RoundTrip(get("http://a.test/"))
		wantTimeout(t, err, "Transport.HeaderTimeout", 7*time.Second)
	})
}

func TestQueueTimeoutSaysSo(t *testing.T) {
	fronts(t, func(n *l4test.Network) http.Handler {
		p := newProxy(n)
		if err := p.Pool.Set(balance.Endpoint{Addr: one, MaxConns: 1}); err != nil {
			panic(err)
		}
		return p
	}, func(t *testing.T, f *front) {
		origin(t, f.network, one, l7test.Script{l7test.Wait(20 * time.Second), l7test.Reply(200, "late")})
		first := f.dial(t).send(getA)
		synctest.Wait()
		f.dial(t).send(getA).wantReply(503, "503 Service Unavailable\n")
		if err := f.last(t).Err; !errors.Is(err, balance.ErrQueueTimeout) || !strings.Contains(err.Error(), "Queue.Timeout") {
			t.Errorf("error %v", err)
		}
		first.wantReply(200, "late")
	})
}

func TestHandshakeTimeoutSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		var log bytes.Buffer
		srv := &l7.Server{Handler: http.NotFoundHandler(), Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		serveAs(t, n, srv, true)
		clientOf(t, n, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if !strings.Contains(log.String(), "Server.HandshakeTimeout of 10s") {
			t.Errorf("log: %s", &log)
		}
	})
}

// The reason for which a server's certificate was not valid stays in sight when
// the next server is not tried for it.
func TestUntrustedCertificateKeepsItsReason(t *testing.T) {
	cert, _ := certFor(t, "a.test")
	for _, two := range []bool{false, true} {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, one, "10.0.0.2:80")
			p.Upstream.TLS = func(*balance.Server) *tls.Config {
				return &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "a.test"}
			}
			if two {
				p.Upstream.Protocols = protocols("1", "2")
			}
			return p
		}
		fronts(t, site, func(t *testing.T, f *front) {
			for _, addr := range []string{one, "10.0.0.2:80"} {
				startOrigin(t, f.network, addr, &tls.Config{Certificates: []tls.Certificate{cert}}, two, func(http.ResponseWriter, *http.Request) {})
			}
			f.dial(t).send(getA).wantReply(502, "502 Bad Gateway\n")
			err := f.last(t).Err
			if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok || !strings.Contains(err.Error(), "unknown authority") {
				t.Errorf("error %v; want the reason of the first server", err)
			}
			if n := f.last(t).Tries; n != 2 {
				t.Errorf("%d tries", n)
			}
		})
	}
}
