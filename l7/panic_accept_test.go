// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A brokenConn is a connection of the host's of which the methods that a new one is asked
// by panic.
type brokenConn struct {
	net.Conn
	remote, local, under bool
}

func (c *brokenConn) RemoteAddr() net.Addr {
	if c.remote {
		panic("boom in RemoteAddr")
	}
	return c.Conn.RemoteAddr()
}

func (c *brokenConn) LocalAddr() net.Addr {
	if c.local {
		panic("boom in LocalAddr")
	}
	return c.Conn.LocalAddr()
}

func (c *brokenConn) NetConn() net.Conn {
	if c.under {
		panic("boom in NetConn")
	}
	return c.Conn
}

// A brokenListener makes something else of its first connection.
type brokenListener struct {
	net.Listener
	make func(net.Conn) net.Conn
}

func (l *brokenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if f := l.make; f != nil && err == nil {
		l.make = nil
		return f(c), nil
	}
	return c, err
}

// A connection that is broken from the start, or none at all, is that connection's end,
// and the next one is served.
func TestNewConnectionsMayPanic(t *testing.T) {
	serveL7 := func(h http.Handler) func(net.Listener) (func(net.Listener) error, func() error) {
		return func(net.Listener) (func(net.Listener) error, func() error) {
			s := &l7.Server{Handler: h, Logger: slog.New(slog.DiscardHandler)}
			return s.Serve, s.Close
		}
	}
	fronts := map[string]func(net.Listener) (func(net.Listener) error, func() error){
		"native": serveL7(l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(http.StatusOK, nil, "ok") })),
		"foreign": serveL7(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "ok")
		})),
		"l4": func(net.Listener) (func(net.Listener) error, func() error) {
			s := &l4.Server{Logger: slog.New(slog.DiscardHandler), OnDone: func(*l4.Record) {}, Handler: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return err
				}
				_, err := io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nok")
				return err
			})}
			return s.Serve, s.Close
		},
	}
	for name, of := range fronts {
		for what, broken := range map[string]func(net.Conn) net.Conn{
			"nil":            func(net.Conn) net.Conn { return nil },
			"nil *TCPConn":   func(net.Conn) net.Conn { return (*net.TCPConn)(nil) },
			"nil *tls.Conn":  func(net.Conn) net.Conn { return (*tls.Conn)(nil) },
			"nil wrapped":    func(net.Conn) net.Conn { return &brokenConn{} },
			"RemoteAddr":     func(c net.Conn) net.Conn { return &brokenConn{Conn: c, remote: true} },
			"LocalAddr":      func(c net.Conn) net.Conn { return &brokenConn{Conn: c, local: true} },
			"NetConn":        func(c net.Conn) net.Conn { return &brokenConn{Conn: c, under: true} },
			"Accept panics":  func(net.Conn) net.Conn { panic("boom in Accept") },
			"all of a *Conn": func(c net.Conn) net.Conn { return tls.Server(&brokenConn{c, true, true, true}, new(tls.Config)) },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					serve, stop := of(ln)
					done := make(chan error, 1)
					go func() { done <- serve(&brokenListener{ln, broken}) }()
					tr := &http.Transport{DialContext: newFrontOn(n).dialContext, DisableKeepAlives: true}
					client := &http.Client{Transport: &toSite{tr, false}, Timeout: time.Second}
					if res, err := client.Get("http://a.test/"); err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					if got := fetchSite(t, client, "/"); got != "ok" {
						t.Errorf("the next request got %q", got)
					}
					tr.CloseIdleConnections()
					_ = stop()
					<-done
				})
			})
		}
	}
}
