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
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// tlsOrigin answers the first request of each connection over TLS with reply, and ends
// the connection, with a close_notify before if so.
func tlsOrigin(t *testing.T, n *l4test.Network, addr, reply string, notify bool) {
	t.Helper()
	cfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	serveOrigin(t, n, addr, func(c *l4test.Conn, br *bufio.Reader) {
		s := tls.Server(c, cfg)
		if _, err := http.ReadRequest(bufio.NewReader(s)); err != nil {
			return
		}
		io.WriteString(s, reply)
		if notify {
			s.CloseWrite()
		}
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
}

// What only the end of the connection ends is complete over TLS only if the server says so
// (RFC 9112, section 9.8): anything on the way can end the TCP stream between two records.
func TestReplyWithoutCloseNotify(t *testing.T) {
	insecure := &tls.Config{InsecureSkipVerify: true}
	const untilEnd, sized, chunked = "HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	for name, test := range map[string]struct {
		reply  string
		notify bool
		own    bool // Dial makes the *tls.Conn
		whole  bool
	}{
		"cut":           {reply: untilEnd},
		"ended":         {reply: untilEnd, notify: true, whole: true},
		"length":        {reply: sized, whole: true},
		"chunks":        {reply: chunked, whole: true},
		"TLS of Dial's": {reply: untilEnd, own: true, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			site := func(n *l4test.Network) *l7.Proxy {
				p := newProxy(n, one)
				if test.own {
					p.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						c, err := n.DialContext(ctx, network, addr)
						return tls.Client(c, insecure), err
					}
				} else {
					p.Upstream.TLS = func(*balance.Server) *tls.Config { return insecure }
				}
				return p
			}
			fronts(t, func(n *l4test.Network) http.Handler { return site(n) }, func(t *testing.T, f *front) {
				tlsOrigin(t, f.network, one, test.reply, test.notify)
				res, err := f.client.Get("http://a.test/")
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				if res.Body.Close(); string(b) != "hello" || (err == nil) != test.whole {
					t.Errorf("read %q, %v", b, err)
				}
				r := f.last(t)
				if want := (l4.Termination{Cause: l4.ServerAborted, Phase: l4.PhaseData}); !test.whole && (r.Termination != want || !errors.Is(r.Err, io.ErrUnexpectedEOF)) {
					t.Errorf("Termination = %v, Err = %v; want %v", r.Termination, r.Err, want)
				} else if test.whole && r.Err != nil {
					t.Errorf("Err = %v", r.Err)
				}
			})
			fronts(t, func(n *l4test.Network) http.Handler { return &l7.BufferReply{Next: site(n)} }, func(t *testing.T, f *front) {
				tlsOrigin(t, f.network, one, test.reply, test.notify)
				if status, body := f.get(t, "/"); test.whole && (status != 200 || body != "hello") || !test.whole && status != 502 {
					t.Errorf("held back: %d %q", status, body)
				}
			})
		})
	}
}

// A tunnel whose server ends TLS without close_notify ends so for the client as well.
func TestTunnelWithoutCloseNotify(t *testing.T) {
	cfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	for name, notify := range map[string]bool{"cut": false, "ended": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				tlsOrigin(t, n, one, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nhello", notify)
				p := newProxy(n, one)
				p.Upgrades = []string{"foo"}
				p.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
				records := make(chan l7.Record, 1)
				srv := &l7.Server{Handler: p, Logger: discardLog(), TLSConfig: cfg, OnDone: func(r *l7.Record) { records <- *r }}
				defer srv.Close()
				ln, err := n.Listen("tcp", siteAddr)
				if err != nil {
					t.Fatal(err)
				}
				go srv.ServeTLS(ln, "", "")
				nc, err := n.DialContext(t.Context(), "tcp", siteAddr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				c := tls.Client(l4.NewConn(nc), &tls.Config{InsecureSkipVerify: true})
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
				b, err := io.ReadAll(c)
				if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nhello") {
					t.Fatalf("read %q, %v", b, err)
				}
				if got := !l4.CutShort(c); got != notify {
					t.Errorf("close_notify: %v", got)
				}
				c.CloseWrite()
				if r := <-records; r.Termination != (l4.Termination{}) || errors.Is(r.Err, l4.ErrNoCloseNotify) == notify {
					t.Errorf("Termination = %v, Err = %v", r.Termination, r.Err)
				}
			})
		})
	}
}
