// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

func TestShutdownWaits(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		time.Sleep(3 * time.Second)
		x.Respond(200, nil, "late")
	})
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			idle := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			idle.wantReply(200, "late")
			fresh := f.dial(t)
			busy := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			half := f.dial(t).send("GET / HTTP/1.1\r\nHo")
			synctest.Wait()
			start := time.Now()
			done := make(chan error)
			go func() { done <- f.server.Shutdown(context.Background()) }()
			idle.wantEnd()
			if d := time.Since(start); d != 0 {
				t.Errorf("idle connections ended after %v", d)
			}
			fresh.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			half.send("st: a\r\n\r\n")
			for _, c := range []*rawConn{busy, half, fresh} {
				if res := c.wantReply(200, "late"); !res.Close {
					t.Error("the reply does not say that the connection ends")
				}
				c.wantEnd()
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if _, err := f.network.DialContext(t.Context(), "tcp", siteAddr); err == nil {
				t.Error("still listening")
			}
		})
	})
}

// A connection that has just been made is not idle: its first request is served, if it
// comes within a second.
func TestShutdownAwaitsFirstRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(lameSite(true)), new(l7.Server), func(t *testing.T, f *front) {
			asks, silent := f.dial(t), f.dial(t)
			synctest.Wait()
			start, done := time.Now(), make(chan error)
			go func() { done <- f.server.Shutdown(context.Background()) }()
			time.Sleep(900 * time.Millisecond)
			asks.send(lameGet).wantLast()
			silent.wantEnd()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != time.Second {
				t.Errorf("it took %v", d)
			}
		})
	})
}

// lateListener accepts a connection just as it is closed, and returns it after that.
type lateListener struct {
	net.Listener
	closed chan struct{}
	taken  bool
}

func (l *lateListener) Accept() (net.Conn, error) {
	if l.taken {
		return nil, net.ErrClosed
	}
	l.taken = true
	c, err := l.Listener.Accept()
	<-l.closed
	return c, err
}

func (l *lateListener) Close() error {
	close(l.closed)
	return l.Listener.Close()
}

// A connection that a listener accepts just as it is closed by Shutdown is served too.
func TestShutdownServesWhatWasJustAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront("byte")
		ln, err := f.network.Listen("tcp", siteAddr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &l7.Server{Handler: lameSite(true), Logger: discardLog()}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(&lateListener{Listener: ln, closed: make(chan struct{})}) }()
		c := f.dial(t)
		synctest.Wait()
		done := make(chan error)
		go func() { done <- srv.Shutdown(context.Background()) }()
		synctest.Wait()
		c.send(lameGet).wantLast()
		if err := <-done; err != nil {
			t.Error(err)
		}
		<-served
	})
}

func TestShutdownCuts(t *testing.T) {
	for _, kind := range []string{"native", "foreign", "proxied", "tunnel"} {
		t.Run(kind, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				switch kind {
				case "native":
					return l7.HandlerFunc(func(x *l7.Exchange) { <-x.Context().Done() })
				case "foreign":
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				}
				return newProxy(n, "10.0.0.1:80")
			}
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
					script := l7test.Script{l7test.Stall()}
					if kind == "tunnel" {
						script = l7test.Script{l7test.Tunnel("websocket")}
					}
					origin(t, f.network, "10.0.0.1:80", script)
					c := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
					synctest.Wait()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					start := time.Now()
					err := f.server.Shutdown(ctx)
					if err != context.DeadlineExceeded || time.Since(start) != time.Second {
						t.Errorf("Shutdown = %v after %v; want it to cut after 1s", err, time.Since(start))
					}
					c.rest()
					if r := f.last(t); kind != "native" && r.Termination.Cause == l4.Normal {
						t.Errorf("record = %+v", r)
					}
				})
			})
		})
	}
}
