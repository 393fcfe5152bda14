// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A bareListener hides all but the methods of net.Conn, as that of netutil does.
type bareListener struct{ net.Listener }

func (l bareListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// A lastRead keeps what its last Read returned.
type lastRead struct {
	net.Conn
	data []byte
}

func (c *lastRead) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.data = append(c.data[:0], p[:n]...)
	}
	return n, err
}

// waysIn are the ways by which a connection may come to a Server.
var waysIn = map[string]func(s *l7.Server, cfg *tls.Config, ln net.Listener, t *testing.T){
	"plain": func(s *l7.Server, _ *tls.Config, ln net.Listener, t *testing.T) { _ = s.Serve(ln) },
	"TLS": func(s *l7.Server, cfg *tls.Config, ln net.Listener, t *testing.T) {
		s.TLSConfig = cfg
		_ = s.ServeTLS(ln, "", "")
	},
	"TLS over bare connections": func(s *l7.Server, cfg *tls.Config, ln net.Listener, t *testing.T) {
		s.TLSConfig = cfg
		_ = s.ServeTLS(bareListener{ln}, "", "")
	},
	"listener of TLS": func(s *l7.Server, cfg *tls.Config, ln net.Listener, t *testing.T) {
		_ = s.Serve(tls.NewListener(ln, cfg))
	},
	"listener of l4": func(s *l7.Server, _ *tls.Config, ln net.Listener, t *testing.T) {
		var in l4.Listener
		outer := &l4.Server{Handler: &in, Logger: discardLog()}
		t.Cleanup(func() { outer.Close() })
		go outer.Serve(ln)
		_ = s.Serve(&in)
	},
	"TLS of l4": func(s *l7.Server, cfg *tls.Config, ln net.Listener, t *testing.T) {
		var in l4.Listener
		outer := &l4.Server{Handler: &l4.TerminateTLS{Config: cfg, Next: &in}, Logger: discardLog()}
		t.Cleanup(func() { outer.Close() })
		go outer.Serve(ln)
		_ = s.Serve(&in)
	},
}

// What is cut off, and has no framing that shows it, must not look complete: not by the
// end of a TCP stream, nor by close_notify.
func TestCutOffDoesNotLookComplete(t *testing.T) {
	cert := selfSigned(t)
	head := l7test.Send("HTTP/1.1 200 OK\r\n\r\nhello")
	upgraded := l7test.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nhello")
	closes := func(s *l7.Server) { s.Close() }
	shuts := func(s *l7.Server) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
	}
	// A handler of net/http that gets a long body is served by the standard front.
	const post = "POST / HTTP/1.0\r\nContent-Length: 1000000\r\n\r\n"
	behind := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
	}
	aborts := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
	}
	for way, serve := range waysIn {
		for name, test := range map[string]struct {
			request string
			script  l7test.Script
			end     func(*l7.Server)
			handler func(http.Handler) http.Handler // nil means the Proxy alone
		}{
			"reply, by the server":                   {"GET / HTTP/1.0\r\n\r\n", l7test.Script{head, l7test.Wait(1), l7test.Reset()}, nil, nil},
			"reply, by Close":                        {"GET / HTTP/1.0\r\n\r\n", l7test.Script{head, l7test.Wait(1 << 40)}, closes, nil},
			"reply, by Shutdown":                     {"GET / HTTP/1.0\r\n\r\n", l7test.Script{head, l7test.Wait(1 << 40)}, shuts, nil},
			"reply behind middleware, by the server": {post, l7test.Script{l7test.Early(), head, l7test.Wait(1), l7test.Reset()}, nil, behind},
			"reply behind middleware, by Close":      {post, l7test.Script{l7test.Early(), head, l7test.Wait(1 << 40)}, closes, behind},
			"reply of a handler":                     {"GET / HTTP/1.0\r\n\r\n", nil, nil, aborts},
			"reply of a handler with a long body":    {post, nil, nil, aborts},
			"CONNECT, by the server":                 {"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", l7test.Script{head, l7test.Wait(1), l7test.Reset()}, nil, nil},
			"CONNECT, by Close":                      {"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", l7test.Script{head, l7test.Wait(1 << 40)}, closes, nil},
			"upgrade, by the server":                 {"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n", l7test.Script{upgraded, l7test.Wait(1), l7test.Reset()}, nil, nil},
			"upgrade, by Shutdown":                   {"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n", l7test.Script{upgraded, l7test.Wait(1 << 40)}, shuts, nil},
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					origin(t, n, "10.0.0.1:80", test.script)
					ln, err := n.Listen("tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					p := newProxy(n, "10.0.0.1:80")
					p.Connect, p.Upgrades = true, []string{"foo"}
					srv := &l7.Server{Handler: p, Logger: discardLog()}
					if test.handler != nil {
						srv.Handler = test.handler(p)
					}
					defer srv.Close()
					go serve(srv, &tls.Config{Certificates: []tls.Certificate{cert}}, ln, t)
					nc, err := n.DialContext(t.Context(), "tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					last := &lastRead{Conn: nc}
					var c net.Conn = last
					if strings.Contains(way, "TLS") {
						c = tls.Client(last, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
					}
					defer nc.Close()
					io.WriteString(c, test.request)
					br := bufio.NewReader(c)
					for line := "-"; err == nil && line != "\r\n"; {
						line, err = br.ReadString('\n')
					}
					b := make([]byte, 5)
					if _, err = io.ReadFull(br, b); err != nil || string(b) != "hello" {
						t.Fatalf("read %q, %v", b, err)
					}
					synctest.Wait()
					if test.end != nil {
						go test.end(srv)
					}
					b, err = io.ReadAll(br)
					if bare := strings.Contains(way, "bare"); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) && !bare {
						t.Errorf("read %q, %v", b, err)
					}
					if last.data[0] == 21 {
						t.Error("close_notify was sent")
					}
				})
			})
		}
	}
}

// A reply that is cut ends its connection at once, also if the request body has not come:
// net/http would wait for that before it closes.
func TestCutOffDoesNotAwaitTheBody(t *testing.T) {
	through := func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(w, r) })
	}
	abort := fixed(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	for name, site := range map[string]func(*l4test.Network) http.Handler{"server": through, "handler": abort} {
		for _, fields := range []string{"Content-Length: 10\r\nExpect: 100-continue\r\n", "Transfer-Encoding: chunked\r\n"} {
			t.Run(name+", "+fields, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
						if name == "server" {
							origin(t, f.network, one, l7test.Script{l7test.Early(), l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"), l7test.Reset()})
						}
						start := time.Now()
						c := f.dial(t).send("PUT / HTTP/1.1\r\nHost: a.test\r\n" + fields + "\r\n")
						if got := c.rest(); strings.Contains(got, "hello") || time.Since(start) > time.Second {
							t.Errorf("%q after %v", got, time.Since(start))
						}
					})
				})
			})
		}
	}
}
