// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// leaf is a foreign handler that tells what it has got.
func leaf(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s %s X=%v body=%s%v%d%v%v", r.Method, r.Host, r.RequestURI, r.URL.Path, r.Header["X-Edit"], b, err, r.ContentLength, r.TransferEncoding, r.Trailer)
}

// A foreign leaf on the byte front: the middleware in front of it runs once a
// request, its edits arrive, and the connection goes on.
func TestForeignLeaf(t *testing.T) {
	var before, after atomic.Int32
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		before.Add(1)
		x.Header.Set("X-Edit", x.Path)
		x.OnReply(l7.ReplyFunc(func(x *l7.Exchange, r *l7.Reply) { r.Header.Set("X-Reply", "edited") }))
		switch x.Query {
		case "?path":
			x.Path, x.Query, x.Host = "/new", "?q", "b.test"
		case "?read2":
			io.ReadFull(x.Body(), make([]byte, 2))
		case "?readall":
			io.ReadAll(x.Body())
		case "?set":
			x.SetBody(strings.NewReader("own"), 3)
		case "?filter":
			x.FilterBody(upper)
		}
		l7.Serve(http.HandlerFunc(leaf), x)
		if !x.Replied() {
			t.Error("not replied")
		}
		after.Add(1)
	})
	const length, chunked = "Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: v\r\n\r\n"
	cases := []struct{ request, want string }{
		{"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /a?b /a X=[/a] body=<nil>0[]map[]"},
		{"GET /a HTTP/1.0\r\n\r\n", "GET  /a /a X=[/a] body=<nil>0[]map[]"},
		{"GET http://a.test/a?x HTTP/1.1\r\nHost: other\r\n\r\n", "GET a.test /a?x /a X=[/a] body=<nil>0[]map[]"},
		{"POST /a HTTP/1.1\r\nHost: a\r\n" + length, "POST a /a /a X=[/a] body=hello<nil>5[]map[]"},
		{"POST /a HTTP/1.1\r\nHost: a\r\n" + chunked, "POST a /a /a X=[/a] body=hello<nil>-1[chunked]map[X-T:[v]]"},
		{"POST /a?path HTTP/1.1\r\nHost: a\r\n" + length, "POST b.test /new?q /new X=[/a] body=hello<nil>5[]map[]"},
		{"POST /a?set HTTP/1.1\r\nHost: a\r\n" + length, "POST a /a?set /a X=[/a] body=own<nil>3[]map[]"},
		{"POST /a?filter HTTP/1.1\r\nHost: a\r\n" + length, "POST a /a?filter /a X=[/a] body=HELLO<nil>-1[]map[]"},
		{"POST /a?read2 HTTP/1.1\r\nHost: a\r\n" + length, "POST a /a?read2 /a X=[/a] body=llo<nil>"},
		{"POST /a?read2 HTTP/1.1\r\nHost: a\r\n" + chunked, "POST a /a?read2 /a X=[/a] body=llo<nil>"},
		{"POST /a?readall HTTP/1.1\r\nHost: a\r\n" + length, "POST a /a?readall /a X=[/a] body=<nil>"},
		{"POST /a?readall HTTP/1.1\r\nHost: a\r\n" + chunked, "POST a /a?readall /a X=[/a] body=<nil>"},
	}
	for _, tc := range cases {
		t.Run(tc.request, func(t *testing.T) {
			fronts(t, fixed(h), func(t *testing.T, f *front) {
				before.Store(0)
				after.Store(0)
				c := f.dial(t)
				n := 0
				for c.Conn != nil && n < 3 {
					c.send(tc.request)
					res, body, err := c.reply("GET")
					if err != nil {
						t.Fatalf("request %d: %v", n, err)
					}
					n++
					if !strings.HasPrefix(body, tc.want) {
						t.Fatalf("request %d: %q; want %q", n, body, tc.want)
					}
					if res.Header.Get("X-Reply") != "edited" {
						t.Errorf("request %d: the reply was not edited", n)
					}
					if res.Close {
						break
					}
				}
				rs := f.done()
				if int(before.Load()) != n || int(after.Load()) != n || len(rs) != n {
					t.Errorf("%d requests: before %d, after %d, %d records", n, before.Load(), after.Load(), len(rs))
				}
				for _, r := range rs {
					if r.Status != 200 || r.Front != l7.FrontStandard || r.BytesOut == 0 {
						t.Errorf("record = %+v", r)
					}
				}
			})
		})
	}
}

func TestForeignPipelined(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { l7.Serve(http.HandlerFunc(leaf), x) })
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t).send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n")
		c.wantReply(200, "POST a /1 /1 X=[] body=one<nil>3[]map[]")
		c.wantReply(200, "GET a /2 /2 X=[] body=<nil>0[]map[]")
		c.wantReply(200, "GET a /3 /3 X=[] body=<nil>0[]map[]")
		c.wantEnd()
	})
}

func TestForeignExpect(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { l7.Serve(http.HandlerFunc(leaf), x) })
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
		if res, _, err := c.reply("POST"); err != nil || res.StatusCode != 100 {
			t.Fatal(res, err)
		}
		c.send("abc").wantReply(200, "POST a / / X=[] body=abc<nil>3[]map[]")
		c.send(getA).wantReply(200, "GET a / / X=[] body=<nil>0[]map[]")
	})
}

// A foreign handler may hijack: what the client sent early is there, and the
// server waits for the connection at Shutdown.
func TestForeignHijack(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, brw)
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
		if res, _, err := c.reply("GET"); err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		time.Sleep(time.Hour) // no timeout of the server's ends it
		c.send("late")
		if f.server != nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() { time.Sleep(time.Second); c.CloseWrite() }()
			start := time.Now()
			if err := f.server.Shutdown(ctx); err != nil || time.Since(start) != time.Second {
				t.Errorf("Shutdown = %v after %v", err, time.Since(start))
			}
		} else {
			c.CloseWrite()
		}
		if s := c.rest(); s != "early late" {
			t.Errorf("read %q", s)
		}
		if f.server != nil {
			if rs := f.done(); len(rs) != 1 || rs[0].Status != 101 {
				t.Errorf("records = %+v", rs)
			}
		}
	})
}

func TestForeignPanics(t *testing.T) {
	for _, value := range []any{"oops", nil} {
		foreignPanics(t, value)
	}
}

func foreignPanics(t *testing.T, value any) {
	var ran atomic.Int32
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		defer ran.Add(1)
		l7.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(value) }), x)
	})
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			for range 2 {
				if s := f.dial(t).send(getA).rest(); !strings.HasPrefix(s, "HTTP/1.1 500 ") {
					t.Errorf("read %q", s)
				}
			}
			rs := f.done()
			if ran.Load() != 2 || len(rs) != 2 || rs[0].Termination.Cause != l4.Internal {
				t.Errorf("middleware came to its end %d times, records %+v", ran.Load(), rs)
			}
		})
	})
}

// A ServeMux is looked through: a native handler in it costs no hand-over.
func TestServeMux(t *testing.T) {
	site := func(n *l4test.Network) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/api/", newProxy(n, "10.0.0.1:80"))
		mux.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello "+r.PathValue("name"))
		})
		return mux
	}
	fronts(t, site, func(t *testing.T, f *front) {
		origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Echo()})
		c := f.dial(t).send("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
		c.wantReply(200, "hi")
		if r := f.last(t); f.name == "byte" && r.Front != l7.FrontByte {
			t.Errorf("record = %+v", r)
		}
		c.send("GET /hello/ann HTTP/1.1\r\nHost: a\r\n\r\n").wantReply(200, "hello ann")
		c.send("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").wantReply(200, "hi")
		c.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").wantReply(404, "404 page not found\n")
		if res, _, _ := c.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").reply("GET"); res.StatusCode/100 != 3 {
			t.Errorf("/api = %d; want a redirect", res.StatusCode)
		}
	})
}

// A foreign handler that does not read a body that does not come holds its
// connection for a moment only.
func TestForeignUnreadBody(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "no thanks") })
	for _, second := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
				c := f.dial(t)
				if second {
					c.send(getA).wantReply(200, "no thanks")
				}
				start := time.Now()
				c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
				if res := c.wantReply(200, "no thanks"); res.ContentLength != 9 || !res.Close {
					t.Errorf("length %d, close %v", res.ContentLength, res.Close)
				}
				c.wantEnd()
				if d := time.Since(start); d > 3*time.Second {
					t.Errorf("after %v", d)
				}
			})
		})
	}
}

// A foreign leaf that is reached while the server shuts down is served like any other.
func TestForeignDuringShutdown(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		time.Sleep(time.Second)
		l7.Serve(http.HandlerFunc(leaf), x)
	})
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			c := f.dial(t).send(getA)
			synctest.Wait()
			done := make(chan error)
			go func() { done <- f.server.Shutdown(context.Background()) }()
			if s := c.rest(); !strings.HasPrefix(s, "HTTP/1.1 200 ") || !strings.Contains(s, "\r\nConnection: close\r\n") {
				t.Errorf("read %q; want the last answer", s)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

// The limits of the server hold on its standard front.
func TestForeignLimits(t *testing.T) {
	h := http.HandlerFunc(leaf)
	srv := func() *l7.Server { return &l7.Server{MaxBodyBytes: 10, MaxFields: 5} }
	cases := []struct{ request, want string }{
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world", "HTTP/1.1 413 "},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n", "too long"},
		{"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: f\r\nG: h\r\nI: j\r\nK: l\r\n\r\n", "HTTP/1.1 431 "},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", "deadline|i/o timeout"},
	}
	for _, tc := range cases {
		for _, second := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, fixed(h), srv(), func(t *testing.T, f *front) {
					c := f.dial(t)
					if second { // the connection is the standard front's by then
						c.send(getA).wantReply(200, "GET a / / X=[] body=<nil>0[]map[]")
					}
					s := c.send(tc.request).rest()
					ok := false
					for _, w := range strings.Split(tc.want, "|") {
						ok = ok || strings.Contains(s, w)
					}
					if !ok {
						t.Errorf("%q, second %v: %q; want %q", tc.request, second, s, tc.want)
					}
				})
			})
		}
	}
}

// A hijacked connection has the type that the listener gave it, or that of its
// TLS, and is the handler's alone once that has returned.
func TestForeignHijackGivesTheBareConnection(t *testing.T) {
	for _, early := range []string{"", "early ", strings.Repeat("e", 9000)} {
		taken := make(chan net.Conn, 2)
		leaf := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			taken <- c
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			go func() {
				defer c.Close()
				io.Copy(c, brw)
			}()
		})
		asked := "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
		wrapped := &l7.Wrap{With: func(http.Handler) http.Handler { return leaf }, Next: l7.HandlerFunc(func(*l7.Exchange) {})}
		for name, h := range map[string]http.Handler{"plain": leaf, "wrapped": wrapped} {
			if name == "wrapped" {
				asked = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
			}
			fronts(t, fixed(h), func(t *testing.T, f *front) {
				c := f.dial(t).send(asked + early)
				if res, _, err := c.reply("GET"); err != nil || res.StatusCode != 101 {
					t.Fatal(res, err)
				}
				if got := <-taken; len(early) < 4<<10 {
					if _, ok := got.(*l4test.Conn); !ok {
						t.Errorf("hijacked a %T", got)
					}
				}
				if f.server != nil {
					if err := f.server.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
					if err := f.server.Close(); err != nil {
						t.Error(err)
					}
				}
				c.send("late")
				c.CloseWrite()
				if s := c.rest(); s != early+"late" {
					t.Errorf("read %d bytes", len(s))
				}
			})
		}
	}
}
