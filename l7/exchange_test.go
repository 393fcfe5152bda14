// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// upper is a BodyFilter.
func upper(r io.Reader) io.Reader { return &mapReader{r, bytes.ToUpper} }

type mapReader struct {
	r io.Reader
	f func([]byte) []byte
}

func (m *mapReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	copy(p, m.f(p[:n]))
	return n, err
}

func TestRespond(t *testing.T) {
	shared := l7.MakeFields("X-A", "a") // of all requests, as a host's constant
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.OnReply(l7.ReplyFunc(func(x *l7.Exchange, r *l7.Reply) {
			r.Header.Set("X-A", r.Header.Get("X-A")+"+")
			r.Header.Add("X-Path", x.Path)
		}))
		switch x.Path {
		case "/304":
			x.Respond(304, &shared, "")
		case "/204":
			x.Respond(204, &shared, "")
		default:
			x.Respond(200, &shared, "body")
			x.Respond(500, nil, "second")
		}
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t)
		for _, tc := range []struct {
			req, want, cl string
		}{
			{"GET /", "200 body", "4"},
			{"HEAD /", "200 ", "4"},
			{"POST /", "200 body", "4"},
			{"GET /304", "304 ", ""},
			{"GET /204", "204 ", ""},
			{"GET /", "200 body", "4"},
		} {
			c.send(tc.req + " HTTP/1.1\r\nHost: a\r\n\r\n")
			method, _, _ := strings.Cut(tc.req, " ")
			res, body, err := c.reply(method)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(res.StatusCode, " ", body); got != tc.want || res.Header.Get("Content-Length") != tc.cl {
				t.Errorf("%s = %q with Content-Length %q; want %q with %q", tc.req, got, res.Header.Get("Content-Length"), tc.want, tc.cl)
			}
			if got := res.Header["X-A"]; len(got) != 1 || got[0] != "a+" {
				t.Errorf("%s: X-A = %q; want a+: an edit of one reply shows in the next", tc.req, got)
			}
		}
		if n := len(f.done()); n != 6 {
			t.Errorf("%d records; want 6", n)
		}
	})
	if shared.Get("X-A") != "a" || shared.Len() != 1 {
		t.Error("the fields given to Respond were edited")
	}
}

func TestReplyFilter(t *testing.T) {
	up := func(next http.Handler) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.FilterBody(upper) }))
			l7.Serve(next, x)
		})
	}
	site := func(n *l4test.Network) http.Handler {
		proxy := newProxy(n, "10.0.0.1:80")
		return up(l7.HandlerFunc(func(x *l7.Exchange) {
			switch x.Path {
			case "/local":
				x.Respond(200, nil, "some text")
			case "/foreign":
				l7.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.WriteString(w, "some ")
					w.(http.Flusher).Flush()
					io.WriteString(w, "text")
				}), x)
			case "/short":
				l7.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Length", "9")
					io.WriteString(w, "some text")
				}), x)
			default:
				l7.Serve(proxy, x)
			}
		}))
	}
	fronts(t, site, func(t *testing.T, f *front) {
		origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Reply(200, "some text")})
		for _, path := range []string{"/proxied", "/local", "/foreign", "/short", "/foreign"} {
			if status, body := f.get(t, path); status != 200 || body != "SOME TEXT" {
				t.Errorf("%s = %d %q; want SOME TEXT", path, status, body)
			}
			f.client.CloseIdleConnections()
		}
	})
}

func TestRequestFilter(t *testing.T) {
	site := func(n *l4test.Network) http.Handler {
		proxy := newProxy(n, "10.0.0.1:80")
		return l7.HandlerFunc(func(x *l7.Exchange) {
			switch x.Query {
			case "?filter":
				x.FilterBody(upper)
			case "?set":
				x.SetBody(strings.NewReader("own"), 3)
			case "?setlong":
				x.SetBody(strings.NewReader("own"), -1)
			case "?read":
				io.ReadAll(x.Body())
				x.SetBody(strings.NewReader("was read"), 8)
			}
			l7.Serve(proxy, x)
		})
	}
	fronts(t, site, func(t *testing.T, f *front) {
		o := origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Echo()})
		c := f.dial(t)
		for _, framing := range []string{"Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"} {
			for query, want := range map[string]string{"": "body", "?filter": "BODY", "?set": "own", "?setlong": "own", "?read": "was read"} {
				c.send("POST /" + query + " HTTP/1.1\r\nHost: a\r\n" + framing)
				res := c.wantReply(200, want)
				if res.Close { // the standard front may
					c = f.dial(t)
				}
			}
		}
		if fs := o.Faults(); len(fs) > 0 {
			t.Error(fs)
		}
	})
}

func TestOnReplyOrder(t *testing.T) {
	mark := func(name string, next http.Handler) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header.Set("X-Order", r.Header.Get("X-Order")+name) }))
			l7.Serve(next, x)
		})
	}
	leaves := map[string]http.Handler{
		"local":   l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") }),
		"error":   l7.HandlerFunc(func(x *l7.Exchange) { x.Error(400, l4.Termination{Cause: l4.Denied}) }),
		"silent":  l7.HandlerFunc(func(x *l7.Exchange) {}),
		"foreign": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }),
	}
	for name, leaf := range leaves {
		t.Run(name, func(t *testing.T) {
			fronts(t, fixed(mark("1", mark("2", mark("3", leaf)))), func(t *testing.T, f *front) {
				res, err := f.client.Get("http://a/")
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if got := res.Header.Get("X-Order"); got != "321" {
					t.Errorf("editors ran in the order %q; want 321", got)
				}
			})
		})
	}
}

func TestErrorPage(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.ErrorPage = func(x *l7.Exchange, status int) (*l7.Fields, string) {
			h := l7.MakeFields("Content-Type", "text/html")
			return &h, fmt.Sprintf("<h1>%d %s", status, x.Path)
		}
		x.Error(418, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest})
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		if status, body := f.get(t, "/x"); status != 418 || body != "<h1>418 /x" {
			t.Errorf("= %d %q", status, body)
		}
		if r := f.last(t); r.Status != 418 || r.Termination.Cause != l4.Denied {
			t.Errorf("record = %+v", r)
		}
	})
}

func TestDrop(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Drop(l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}) })
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if s := c.rest(); strings.TrimSuffix(s, "<reset>") != "" {
			t.Errorf("read %q; want nothing", s)
		}
		if r := f.last(t); r.Status != 0 || r.Termination.Cause != l4.Denied {
			t.Errorf("record = %+v", r)
		}
	})
}

func TestKeys(t *testing.T) {
	var user l7.Key[string]
	var count l7.Key[int]
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		if _, ok := user.Get(x); ok {
			t.Error("the value of the exchange before is there")
		}
		user.Set(x, "ann")
		count.Set(x, 1)
		count.Set(x, 2)
		u, _ := user.Get(x)
		n, ok := count.Get(x)
		x.Respond(200, nil, fmt.Sprint(u, " ", n, ok))
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		for range 3 {
			if _, body := f.get(t, "/"); body != "ann 2 true" {
				t.Errorf("= %q", body)
			}
		}
	})
}

func TestHandlerPanics(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		if x.Path == "/late" {
			x.Respond(200, nil, "x")
		}
		panic("oops")
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		early := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").rest()
		if f.name == "standard" {
			if early != "" {
				t.Errorf("read %q; want nothing, as of any http.Server", early)
			}
			f.dial(t).send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").rest()
			return
		}
		if !strings.HasPrefix(early, "HTTP/1.1 500 ") || f.last(t).Termination.Cause != l4.Internal {
			t.Errorf("read %q, record %+v", early, f.last(t))
		}
		f.dial(t).send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").rest()
		if r := f.last(t); r.Termination.Cause != l4.Internal {
			t.Errorf("record = %+v", r)
		}
	})
}

// A body that is read with an empty buffer, and one that nobody reads.
func TestBodyReads(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		switch x.Path {
		case "/empty":
			n, err := x.Body().Read(nil)
			b, _ := io.ReadAll(x.Body())
			x.Respond(200, nil, fmt.Sprint(n, err, string(b)))
		default:
			x.Respond(200, nil, "unread")
		}
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t)
		c.send("POST /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").wantReply(200, "0 <nil>hello")
		c.send("POST /empty HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").wantReply(200, "0 <nil>hello")
		if f.name == "standard" {
			c = f.dial(t)
		}
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").wantReply(200, "unread")
		c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").wantReply(200, "unread")
	})
}

// An unread body that is too much to read, or was not asked for, ends the
// connection, and the reply says so.
func TestUnreadBodyCloses(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "no") })
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if res := c.wantReply(200, "no"); !res.Close {
			t.Error("the reply does not say that the connection ends")
		}
		c.wantEnd()
		c = f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
		if res := c.wantReply(200, "no"); !res.Close {
			t.Error("the reply does not say that the connection ends")
		}
		c.wantEnd()
	})
}

// A client that sends the whole of a long body before it reads gets the reply all the
// same, and is not reset. (net/http takes 256 KiB.)
func TestUnreadBodyIsTakenInFull(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(413, nil, "no") })
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
			c.send(strings.Repeat("x", 4000000)).wantReply(413, "no")
		})
	})
}

// A handler may answer before it reads a body that waits for 100 Continue:
// the 100 must not come behind the reply.
func TestNoContinueBehindReply(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.Respond(200, nil, "done")
		io.Copy(io.Discard, x.Body())
	})
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			if s := c.rest(); strings.Contains(s, "100 Continue") {
				t.Errorf("read %q", s)
			}
		})
	})
}

// Request gives the request with the edits, on both fronts the same.
func TestRequest(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.Host, x.Path, x.Query = "b.test", "/new%2Fpath", "?q"
		x.Header.Set("X-New", "1")
		x.Header.Del("X-Old")
		r := x.Request()
		b, _ := io.ReadAll(r.Body)
		x.Respond(200, nil, fmt.Sprint(r.Method, r.Host, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RequestURI, r.ContentLength,
			r.Header["X-New"], r.Header["X-Old"], r.Header["X-Keep"], string(b), r.Context().Err(), r.RemoteAddr != "", r.ProtoMajor))
	})
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		f.dial(t).send("POST http://a.test/old?x HTTP/1.1\r\nHost: a.test\r\nX-Old: 1\r\nx-keep: 2\r\nContent-Length: 2\r\n\r\nhi").
			wantReply(200, "POSTb.test/new/path/new%2Fpathq/new%2Fpath?q2 [1] [] [2]hi<nil> true 1")
	})
}
