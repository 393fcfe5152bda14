// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A wildConn is a connection of the host's of which one method panics while armed.
type wildConn struct {
	net.Conn
	w *wildConns
}

type wildConns struct {
	method string
	armed  atomic.Bool
}

func (w *wildConns) tick(method string) {
	if method == w.method && w.armed.Load() {
		panic("boom in " + method)
	}
}

func (c *wildConn) Read(p []byte) (int, error)  { c.w.tick("Read"); return c.Conn.Read(p) }
func (c *wildConn) Write(p []byte) (int, error) { c.w.tick("Write"); return c.Conn.Write(p) }
func (c *wildConn) SetDeadline(t time.Time) error {
	c.w.tick("SetDeadline")
	return c.Conn.SetDeadline(t)
}
func (c *wildConn) Close() error {
	defer c.w.tick("Close")
	return c.Conn.Close()
}
func (c *wildConn) SetReadDeadline(t time.Time) error {
	c.w.tick("SetReadDeadline")
	return c.Conn.SetReadDeadline(t)
}
func (c *wildConn) SetWriteDeadline(t time.Time) error {
	c.w.tick("SetWriteDeadline")
	return c.Conn.SetWriteDeadline(t)
}

type wildListener struct {
	net.Listener
	w *wildConns
}

func (l *wildListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wildConn{c, l.w}, nil
}

// Every method of a connection that the host gives us may panic, at any time: in the
// goroutine of a request, in a timer, while it is idle. The connection or the request
// ends, and the next one is served.
func TestConnectionsMayPanic(t *testing.T) {
	was := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	defer slog.SetDefault(was)
	for _, side := range []string{"client", "server"} {
		for _, proto := range []string{"1", "h2c"} {
			for _, method := range []string{"Read", "Write", "Close", "SetDeadline", "SetReadDeadline", "SetWriteDeadline"} {
				for _, what := range []string{"idle", "leave", "slow body", "hedge", "mirror", "timeout", "shutdown", "cut"} {
					t.Run(strings.Join([]string{side, proto, method, what}, " "), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { wildConnStory(t, side, proto, method, what) })
					})
				}
			}
		}
	}
}

func wildConnStory(t *testing.T, side, proto, method, what string) {
	n := l4test.NewNetwork()
	w := &wildConns{method: method}
	for _, addr := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		ln, err := n.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		origin := &http.Server{Protocols: protocols("1", "h2c"), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/slow") {
				select {
				case <-time.After(5 * time.Second):
				case <-r.Context().Done():
				}
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(rw, "ok")
		})}
		go origin.Serve(ln)
		defer origin.Close()
	}
	up := &l7.Upstream{IdleTimeout: 4 * time.Second, Protocols: protocols(proto)}
	up.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := n.DialContext(ctx, network, addr)
		if err == nil && side == "server" {
			c = &wildConn{c, w}
		}
		return c, err
	}
	proxy := &l7.Proxy{Pool: newPool("10.0.0.1:80", "10.0.0.2:80"), Upstream: up, HeaderTimeout: 8 * time.Second}
	switch what {
	case "hedge":
		proxy.Hedge = l7.Hedge{Delay: time.Second}
	case "timeout":
		proxy.HeaderTimeout = 2 * time.Second
	}
	var handler http.Handler = &l7.BufferBody{Timeout: 2 * time.Second, Next: proxy}
	if what == "mirror" {
		proxy.Mirror = &l7.Mirror{To: &l7.Proxy{Pool: newPool("10.0.0.2:80"), Upstream: up, Timeout: 3 * time.Second}}
	}
	ln, err := n.Listen("tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	if side == "client" {
		ln = &wildListener{ln, w}
	}
	srv := &l7.Server{Handler: handler, Logger: slog.New(slog.DiscardHandler), IdleTimeout: 2 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()

	client := func() (*http.Client, func()) {
		tr := &http.Transport{DialContext: newFrontOn(n).dialContext, Protocols: protocols(proto)}
		return &http.Client{Transport: &toSite{tr, false}}, tr.CloseIdleConnections
	}
	one, closeOne := client()
	if got := fetchSite(t, one, "/"); got != "ok" {
		t.Fatalf("before: %q", got)
	}
	get := func(path string, d time.Duration, body io.Reader) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		verb := "GET"
		if body != nil {
			verb = "POST"
		}
		req, err := http.NewRequestWithContext(ctx, verb, "http://a.test"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := one.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	arm := time.AfterFunc(500*time.Millisecond, func() { w.armed.Store(true) })
	switch what {
	case "idle":
		time.Sleep(10 * time.Second)
	case "leave":
		get("/slow", time.Second, nil)
	case "slow body":
		pr, pw := io.Pipe()
		go func() {
			_, _ = pw.Write([]byte("x"))
			time.Sleep(5 * time.Second)
			_ = pw.CloseWithError(errors.New("enough"))
		}()
		get("/", 10*time.Second, pr)
	case "hedge", "mirror", "timeout":
		get("/slow", 10*time.Second, nil)
	case "cut":
		time.AfterFunc(time.Second, func() {
			for s := range proxy.Pool.All() {
				s.Cut(true, "test")
			}
		})
		get("/slow", 10*time.Second, nil)
	case "shutdown":
		time.Sleep(time.Second)
	}
	synctest.Wait()
	if what != "shutdown" {
		time.Sleep(6 * time.Second)
		w.armed.Store(false)
		next, closeNext := client()
		if got := fetchSite(t, next, "/"); got != "ok" {
			t.Errorf("the next request got %q", got)
		}
		closeNext()
	}
	closeOne()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := noPanic(func() error { return srv.Shutdown(ctx) }); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	w.armed.Store(false)
	_ = srv.Close()
	<-done
	_ = noPanic(func() error { up.CloseIdle(); return nil })
	arm.Stop()
	time.Sleep(10 * time.Second)
	for s := range proxy.Pool.All() {
		if k := s.InFlight(); k != 0 {
			t.Errorf("%s: %d leases left", s.Name(), k)
		}
	}
}

func noPanic(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}
