// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// inProcess returns a proxy to a member of this process.
func inProcess(h http.Handler) *l7.Proxy {
	pool := &balance.Pool{Policy: balance.RoundRobin{}}
	if err := pool.Set(balance.Endpoint{Name: "local", Value: h}); err != nil {
		panic(err)
	}
	return &l7.Proxy{Pool: pool}
}

// A reply is framed by the method that the client sent, whatever a handler made
// of it: the next reply on the connection begins where the client looks for it.
func TestReplyFramingFollowsTheClientsMethod(t *testing.T) {
	origin := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", "5")
			if r.Method != "HEAD" { // as http.ServeContent
				io.WriteString(w, "hello")
			}
		case "/chunked":
			http.NewResponseController(w).Flush()
			io.WriteString(w, "hello")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "hello")
		}
	}
	toOrigin := func(edit func(*l7.Proxy)) func(n *l4test.Network) http.Handler {
		return func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			edit(p)
			return p
		}
	}
	for _, leaf := range []struct {
		name string
		make func(n *l4test.Network) http.Handler
	}{
		{"proxy", toOrigin(func(p *l7.Proxy) {})},
		{"proxy with mirror", toOrigin(func(p *l7.Proxy) { p.Mirror = &l7.Mirror{To: &l7.FixedReply{Body: "copy"}} })},
		{"proxy with hedge", toOrigin(func(p *l7.Proxy) { p.Hedge = l7.Hedge{Delay: time.Nanosecond} })},
		{"proxy of filtered bodies", func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			return l7.HandlerFunc(func(x *l7.Exchange) {
				x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.FilterBody(func(b io.Reader) io.Reader { return b }) }))
				p.ServeExchange(x)
			})
		}},
		{"local reply", fixed(&l7.FixedReply{Body: "hello"})},
		{"error page", fixed(&l7.Deny{Status: 404})},
		{"member that is native", fixed(inProcess(&l7.FixedReply{Body: "hello"}))},
		{"member that is not", fixed(inProcess(http.HandlerFunc(origin)))},
		{"foreign handler", fixed(http.HandlerFunc(origin))},
	} {
		t.Run(leaf.name, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				next := leaf.make(n)
				return l7.HandlerFunc(func(x *l7.Exchange) {
					if m := x.Header.Get("X-To"); m != "" {
						(&l7.Rewrite{Method: m, Next: next}).ServeExchange(x)
					} else {
						l7.Serve(next, x)
					}
				})
			}
			fronts(t, site, func(t *testing.T, f *front) {
				serveHTTP(t, f.network, "10.0.0.1:80", origin)
				for _, path := range []string{"/length", "/chunked", "/none", "/early"} {
					for _, from := range []string{"GET", "HEAD", "POST", "DELETE"} {
						for _, to := range []string{"GET", "HEAD", "POST"} {
							c := f.dial(t).send(from + " " + path + " HTTP/1.1\r\nHost: a\r\nX-To: " + to + "\r\n\r\nGET /length HTTP/1.1\r\nHost: a\r\n\r\n")
							res, body, err := c.reply(from)
							for err == nil && res.StatusCode == http.StatusEarlyHints {
								res, body, err = c.reply(from)
							}
							if err != nil {
								t.Errorf("%s %s as %s: %v", from, path, to, err)
								continue
							}
							if from == "HEAD" && body != "" {
								t.Errorf("%s %s as %s: body %q", from, path, to, body)
							}
							if res, body, err = c.reply("GET"); err != nil || body != "hello" && body != "404 Not Found\n" {
								t.Errorf("after %s %s as %s: %v, %q, %v", from, path, to, res, body, err)
							}
							c.Close()
						}
					}
				}
			})
		})
	}
}

// A tunnel is one for both sides or for neither.
func TestMethodIsNotRewrittenToConnect(t *testing.T) {
	for _, c := range []struct{ head, to string }{
		{"GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", "CONNECT"},
		{"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "GET"},
	} {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			p.Connect = true
			return l7.HandlerFunc(func(x *l7.Exchange) {
				x.Method = c.to
				if x.Path = "/"; c.to == "CONNECT" {
					x.Path = ""
				}
				p.ServeExchange(x)
			})
		}
		fronts(t, site, func(t *testing.T, f *front) {
			o := origin(t, f.network, "10.0.0.1:80")
			if res, _, err := f.dial(t).send(c.head).reply("GET"); err != nil || res.StatusCode != 500 {
				t.Errorf("%q as %s: %v, %v; want 500", c.head, c.to, res, err)
			}
			if r := f.last(t); r.Err == nil || r.Status != 500 {
				t.Errorf("record: %d, %v", r.Status, r.Err)
			}
			if rs := o.Requests(); len(rs) > 0 {
				t.Errorf("the server got %+v", rs)
			}
		})
	}
}

// What answers a CONNECT itself with 2xx has opened a tunnel as the client sees
// it, so nothing follows.
func TestLocalReplyToConnectHasNoBody(t *testing.T) {
	fronts(t, fixed(&l7.FixedReply{Body: "HTTP/1.1 200 OK\r\n\r\n"}), func(t *testing.T, f *front) {
		s := f.dial(t).send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").rest()
		head, tunnel, _ := strings.Cut(s, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 200 ") || tunnel != "" {
			t.Errorf("got %q", s)
		}
		if f.name == "byte" && strings.Contains(head, "Content-Length") { // net/http adds its own, which a client has to ignore
			t.Errorf("got %q", s)
		}
	})
}

// The same for a program that is the client: a member of this process that
// writes a body where none belongs gives none.
func TestTransportFramesMembersOfThisProcess(t *testing.T) {
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Name: "local", Value: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/short":
			w.Header().Set("Content-Length", "10")
		case "/long":
			w.Header().Set("Content-Length", "2")
		}
		io.WriteString(w, "hello")
	})}); err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &l7.Transport{Pool: pool}}
	for _, tc := range []struct {
		method, path, body string
		fails              bool
	}{
		{"GET", "/", "hello", false},
		{"HEAD", "/", "", false},
		{"GET", "/none", "", false},
		{"GET", "/short", "hello", true},
		{"GET", "/long", "", true},
	} {
		req, _ := http.NewRequest(tc.method, "http://a"+tc.path, nil)
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if string(b) != tc.body || (err != nil) != tc.fails {
			t.Errorf("%s %s: %q, %v", tc.method, tc.path, b, err)
		}
		res.Body.Close()
	}
}
