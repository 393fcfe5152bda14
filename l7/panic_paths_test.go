// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A callback of the TLS configuration that panics ends the handshake it is
// called in, for clients of HTTP/1 and of HTTP/2.
func TestTLSCallbackPanics(t *testing.T) {
	var armed atomic.Bool
	tick := func() {
		if armed.Load() {
			panic("boom")
		}
	}
	cert := selfSigned(t)
	base := func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}} }
	for name, set := range map[string]func(c *tls.Config){
		"GetCertificate": func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { tick(); return &cert, nil }
			c.Certificates = nil
		},
		"GetConfigForClient": func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { tick(); return nil, nil }
		},
		"VerifyConnection": func(c *tls.Config) {
			c.VerifyConnection = func(tls.ConnectionState) error { tick(); return nil }
		},
		"VerifyPeerCertificate": func(c *tls.Config) {
			c.ClientAuth = tls.RequireAnyClientCert
			c.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { tick(); return nil }
		},
		"WrapSession": func(c *tls.Config) {
			c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
				tick()
				return c.EncryptTicket(cs, ss)
			}
		},
		"Time": func(c *tls.Config) { c.Time = func() time.Time { tick(); return time.Now() } },
	} {
		for _, two := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					cfg := base()
					set(cfg)
					log := newPanicLog()
					srv := &l7.Server{TLSConfig: cfg, Logger: slog.New(log), Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })}
					ln, err := n.Listen("tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					done := make(chan error, 1)
					go func() { done <- srv.ServeTLS(ln, "", "") }()
					tr := &http.Transport{DialContext: newFrontOn(n).dialContext, Protocols: protocols("1"), TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: base().Certificates, ClientSessionCache: tls.NewLRUClientSessionCache(0)}}
					if two {
						tr.Protocols = protocols("2")
					}
					client := &http.Client{Transport: &toSite{tr, true}}
					armed.Store(true)
					if res, err := client.Get("https://a.test/"); err == nil {
						res.Body.Close()
						t.Errorf("status %d; want an error", res.StatusCode)
					}
					synctest.Wait()
					armed.Store(false)
					if log.count() == 0 {
						t.Error("no stack in the log")
					}
					if got := fetchSite(t, client, "/"); got != "ok" {
						t.Errorf("the next connection got %q", got)
					}
					tr.CloseIdleConnections()
					synctest.Wait()
					_ = srv.Close()
					<-done
					time.Sleep(time.Second)
				})
			})
		}
	}
}

// http.ErrAbortHandler cuts the connection or resets the stream, as under
// net/http, and is not logged: not by a handler, not by what runs in other
// goroutines.
func TestErrAbortHandlerCutsInSilence(t *testing.T) {
	filter := func(next http.Handler, reply bool) http.Handler {
		abort := func(io.Reader) io.Reader {
			return readerFunc(func([]byte) (int, error) { panic(http.ErrAbortHandler) })
		}
		return l7.HandlerFunc(func(x *l7.Exchange) {
			if reply {
				x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.FilterBody(abort) }))
			} else {
				x.FilterBody(abort)
			}
			l7.Serve(next, x)
		})
	}
	leaf := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })
	for name, site := range map[string]func(n *l4test.Network) http.Handler{
		"handler": fixed(l7.HandlerFunc(func(*l7.Exchange) { panic(http.ErrAbortHandler) })),
		"leaf":    fixed(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })),
		"error page": fixed(l7.HandlerFunc(func(x *l7.Exchange) {
			x.ErrorPage = func(*l7.Exchange, int) (*l7.Fields, string) { panic(http.ErrAbortHandler) }
			x.Error(500, x.Record.Termination)
		})),
		"request filter":          func(n *l4test.Network) http.Handler { return filter(newProxy(n, "10.0.0.1:80"), false) },
		"reply filter":            func(n *l4test.Network) http.Handler { return filter(newProxy(n, "10.0.0.1:80"), true) },
		"reply filter and a leaf": fixed(filter(leaf, true)),
	} {
		for _, c := range carriers {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					serveHTTP(t, n, "10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
					log := newPanicLog()
					was := slog.Default()
					slog.SetDefault(slog.New(log))
					defer slog.SetDefault(was)
					c.runServer(t, n, &l7.Server{Handler: site(n), Logger: slog.New(log)}, func(client *http.Client) {
						res, err := client.Post("http://a.test/", "text/plain", io.MultiReader(strings.NewReader("body")))
						if err == nil {
							_, err = io.ReadAll(res.Body)
							res.Body.Close()
						}
						if err == nil {
							t.Errorf("a whole reply, status %d; want it cut", res.StatusCode)
						}
					})
					if log.count() != 0 {
						t.Error("it was logged")
					}
				})
			})
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Either try of a hedged request may run into a dialer that panics: the other
// one answers, and both leases come back.
func TestHedgeSurvivesPanics(t *testing.T) {
	for _, bad := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		t.Run(bad, func(t *testing.T) {
			proxy := func(n *l4test.Network) *l7.Proxy {
				p := newProxy(n, "10.0.0.1:80", "10.0.0.2:80")
				p.Hedge = l7.Hedge{Delay: time.Second}
				p.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					time.Sleep(2 * time.Second)
					if addr == bad {
						panic("boom")
					}
					return n.DialContext(ctx, network, addr)
				}
				return p
			}
			var pool *balance.Pool
			site := func(n *l4test.Network) http.Handler { p := proxy(n); pool = p.Pool; return p }
			fronts(t, site, func(t *testing.T, f *front) {
				for _, addr := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
					origin(t, f.network, addr, l7test.Script{l7test.Reply(200, "ok")})
				}
				f.dial(t).send(getA).wantReply(200, "ok")
				synctest.Wait()
				for s := range pool.All() {
					if s.InFlight() != 0 {
						t.Errorf("%v has %d leases", s, s.InFlight())
					}
				}
			})
		})
	}
}

// A Transport makes an error of what panics in its goroutines and in the
// caller's, and gives the lease back.
func TestTransportPanics(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(tr *l7.Transport, req *http.Request) *http.Request
		good bool // there is a response all the same
	}{
		"Balance": {func(tr *l7.Transport, req *http.Request) *http.Request {
			tr.Balance = func(*http.Request) balance.Request { panic("boom") }
			return req
		}, false},
		"OnDone": {func(tr *l7.Transport, req *http.Request) *http.Request {
			tr.OnDone = func(*l7.Record) { panic("boom") }
			return req
		}, true},
		"Dial": {func(tr *l7.Transport, req *http.Request) *http.Request {
			tr.Upstream.Dial = func(context.Context, string, string) (net.Conn, error) { panic("boom") }
			return req
		}, false},
		"Body": {func(_ *l7.Transport, req *http.Request) *http.Request {
			req.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { panic("boom") }))
			req.ContentLength, req.Method = -1, "POST"
			return req
		}, false},
		"Got1xxResponse": {func(_ *l7.Transport, req *http.Request) *http.Request {
			return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { panic("boom") },
			}))
		}, false},
	} {
		for _, protocol := range []string{"1", "h2c"} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", "10.0.0.1:80")
					if err != nil {
						t.Fatal(err)
					}
					srv := &http.Server{Protocols: protocols("1", "h2c"), ErrorLog: quietLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(103)
						_, _ = io.Copy(w, r.Body)
					})}
					go srv.Serve(ln)
					defer srv.Close()
					log := newPanicLog()
					was := slog.Default()
					slog.SetDefault(slog.New(log))
					defer slog.SetDefault(was)
					tr := &l7.Transport{Pool: newPool("10.0.0.1:80"), Upstream: &l7.Upstream{Dial: n.DialContext, Protocols: protocols(protocol)}}
					req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test/", nil)
					if err != nil {
						t.Fatal(err)
					}
					res, err := tr.RoundTrip(c.set(tr, req))
					if err == nil {
						_, err = io.ReadAll(res.Body)
						res.Body.Close()
					}
					if te, ok := errors.AsType[*l7.TransportError](err); c.good != (err == nil) || err != nil && !ok {
						t.Errorf("error %v, %v", err, te)
					}
					synctest.Wait()
					if log.count() == 0 {
						t.Error("no stack in the log")
					}
					if s := tr.Pool.Server("10.0.0.1:80"); s.InFlight() != 0 {
						t.Errorf("%d leases are left", s.InFlight())
					}
					tr.CloseIdleConnections()
				})
			})
		}
	}
}

// A member of the pool that is a handler aborts: to a Transport that is an
// error, as it is with net/http, not a reply.
func TestTransportMemberAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(balance.Pool)
		h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		if err := p.Set(balance.Endpoint{Name: "here", Addr: "here:1", Value: h}); err != nil {
			t.Fatal(err)
		}
		tr := &l7.Transport{Pool: p}
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := tr.RoundTrip(req); !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("= %v, %v", res, err)
		}
		synctest.Wait()
		if n := p.Server("here").InFlight(); n != 0 {
			t.Errorf("%d leases are left", n)
		}
	})
}
