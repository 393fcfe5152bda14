// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

const two = "10.0.0.2:80"

// fails answers the first n requests by do, and those after with 200 and the
// body of the request.
type fails struct {
	n    atomic.Int32
	seen atomic.Int32
	do   http.HandlerFunc
}

func (f *fails) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.seen.Add(1)
	if f.n.Add(-1) >= 0 {
		f.do(w, r)
		return
	}
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "ok %s", b)
}

func reset(w http.ResponseWriter, r *http.Request) {
	io.ReadFull(r.Body, make([]byte, 4))
	panic(http.ErrAbortHandler)
}

func status(code int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(code)
	}
}

func TestRetry(t *testing.T) {
	for _, tc := range []struct {
		name   string
		retry  l7.Retry
		method string
		body   string
		fail   http.HandlerFunc
		n      int32
		want   string // status and body
		seen   int32  // requests that servers got
		waited time.Duration
	}{
		{name: "reset before a reply", method: "GET", fail: reset, n: 1, want: "200 ok ", seen: 2},
		{name: "one retry by default", method: "GET", fail: reset, n: 2, want: "502", seen: 2},
		{name: "not what cannot be repeated", method: "POST", body: "data", fail: reset, n: 1, want: "502", seen: 1},
		{name: "but if the host says so", retry: l7.Retry{Repeatable: func(*l7.Exchange) bool { return true }}, method: "POST", body: "data", fail: reset, n: 1, want: "200 ok data", seen: 2},
		{name: "none", retry: l7.Retry{Tries: 1}, method: "GET", fail: reset, n: 1, want: "502", seen: 1},
		{name: "a streamed body is kept", method: "PUT", body: strings.Repeat("x", 20000), fail: reset, n: 1, want: "200 ok " + strings.Repeat("x", 20000), seen: 2},
		{name: "up to a limit", retry: l7.Retry{BodyBytes: 10000}, method: "PUT", body: strings.Repeat("x", 20000), fail: reset, n: 1, want: "502", seen: 1},
		{name: "statuses are replies", method: "GET", fail: status(503), n: 1, want: "503", seen: 1},
		{name: "unless listed", retry: l7.Retry{Statuses: []int{503}}, method: "GET", fail: status(503), n: 1, want: "200 ok ", seen: 2},
		{name: "with the body sent again", retry: l7.Retry{Statuses: []int{503}}, method: "PUT", body: strings.Repeat("y", 20000), fail: status(503), n: 1, want: "200 ok " + strings.Repeat("y", 20000), seen: 2},
		{name: "the last one is passed on", retry: l7.Retry{Statuses: []int{503}}, method: "GET", fail: status(503), n: 9, want: "503", seen: 2},
		{name: "Retry-After is honoured", retry: l7.Retry{Statuses: []int{503}, MaxBackoff: 5 * time.Second}, method: "GET", fail: status(503, "Retry-After", "2"), n: 1, want: "200 ok ", seen: 2, waited: 2 * time.Second},
		{name: "or too long", retry: l7.Retry{Statuses: []int{503}}, method: "GET", fail: status(503, "Retry-After", "2"), n: 1, want: "503", seen: 1},
		{name: "only listed failures", retry: l7.Retry{Classes: []balance.Class{balance.Timeout}}, method: "GET", fail: reset, n: 1, want: "502", seen: 1},
		{name: "the default and more", retry: l7.Retry{Classes: append(l7.DefaultRetryClasses(), balance.Timeout)}, method: "GET", fail: reset, n: 1, want: "200 ok ", seen: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fails{do: tc.fail}
			f.n.Store(tc.n)
			fronts(t, func(n *l4test.Network) http.Handler {
				f.n.Store(tc.n)
				f.seen.Store(0)
				p := newProxy(n, one, two)
				p.Retry = tc.retry
				return p
			}, func(t *testing.T, fr *front) {
				serveHTTP(t, fr.network, one, f.ServeHTTP)
				serveHTTP(t, fr.network, two, f.ServeHTTP)
				req, _ := http.NewRequest(tc.method, "http://a.test/", nil)
				if tc.body != "" { // in two pieces, so that it has to be waited for
					pr, pw := io.Pipe()
					go func() {
						io.WriteString(pw, tc.body[:len(tc.body)/2])
						time.Sleep(time.Millisecond)
						io.WriteString(pw, tc.body[len(tc.body)/2:])
						pw.Close()
					}()
					req.Body = pr
				}
				start := time.Now()
				res, err := fr.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				got := fmt.Sprint(res.StatusCode, " ", string(b))
				if !strings.HasPrefix(got, tc.want) {
					t.Errorf("got %.60q; want %.60q", got, tc.want)
				}
				if d := time.Since(start); d < tc.waited || d > tc.waited+time.Second {
					t.Errorf("took %v; want about %v", d, tc.waited)
				}
				if n := f.seen.Load(); n != tc.seen {
					t.Errorf("the servers saw %d requests; want %d", n, tc.seen)
				}
			})
		})
	}
}

// A server that is cut while it is connected to has got nothing: another one is tried,
// whatever failures are listed, if those to connect are.
func TestRetryCutWhileConnecting(t *testing.T) {
	for _, tc := range []struct {
		classes []balance.Class
		want    int
	}{
		{nil, 200},
		{[]balance.Class{balance.ConnectFailed}, 200},
		{[]balance.Class{balance.Reset}, 503},
	} {
		var p *l7.Proxy
		fronts(t, func(n *l4test.Network) http.Handler {
			p = newProxy(n, one)
			p.Retry.Classes = tc.classes
			p.Pool.Budget = balance.Budget{Share: -1, Min: -1} // it needs no share
			return p
		}, func(t *testing.T, f *front) {
			f.network.Drop("tcp", one)
			serveHTTP(t, f.network, two, func(http.ResponseWriter, *http.Request) {})
			time.AfterFunc(time.Second, func() {
				if err := p.Pool.Set(balance.Endpoint{Addr: one}, balance.Endpoint{Addr: two}); err != nil {
					t.Error(err)
				}
				s := p.Pool.Server(one)
				s.Report(balance.Check, balance.Down, "test")
				s.Cut(true, "test")
			})
			if got, _ := f.get(t, "/"); got != tc.want {
				t.Errorf("%v: %d; want %d", tc.classes, got, tc.want)
			}
		})
	}
}

// Timeouts of one try and of all of it.
func TestProxyTimeouts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		set   func(p *l7.Proxy)
		after time.Duration
		tries int
		end   string
	}{
		{"header", func(p *l7.Proxy) { p.HeaderTimeout = 2 * time.Second }, 2 * time.Second, 1, "sH"},
		{"try", func(p *l7.Proxy) {
			p.TryTimeout, p.Retry.Classes = time.Second, []balance.Class{balance.Timeout}
			p.Retry.Backoff = -1
		}, 2 * time.Second, 2, "sH"},
		{"all", func(p *l7.Proxy) {
			p.TryTimeout, p.Timeout, p.Retry.Tries = time.Second, 3*time.Second, 9
			p.Retry.Classes, p.Retry.Backoff = []balance.Class{balance.Timeout}, -1
		}, 3 * time.Second, 3, "sH"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fronts(t, func(n *l4test.Network) http.Handler {
				p := newProxy(n, one, two)
				tc.set(p)
				return p
			}, func(t *testing.T, f *front) {
				hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
				serveHTTP(t, f.network, one, hang)
				serveHTTP(t, f.network, two, hang)
				start := time.Now()
				if st, _ := f.get(t, "/"); st != 504 {
					t.Errorf("status %d; want 504", st)
				}
				// Deadlines are coarse, up to a quarter late.
				if d := time.Since(start); d < tc.after || d > tc.after+tc.after/4 {
					t.Errorf("after %v; want %v to a quarter more", d, tc.after)
				}
				if r := f.last(t); r.Tries != tc.tries || r.Termination.String() != tc.end {
					t.Errorf("%d tries, %v; want %d, %s", r.Tries, r.Termination, tc.tries, tc.end)
				}
			})
		})
	}
}

// The time for a reply begins with the end of the request.
func TestProxySlowUpload(t *testing.T) {
	for _, protocols := range []*http.Protocols{nil, protocols("h2c")} {
		fronts(t, func(n *l4test.Network) http.Handler {
			p := newProxy(n, one)
			p.HeaderTimeout = 2 * time.Second
			p.Upstream.Protocols = protocols
			return p
		}, func(t *testing.T, f *front) {
			startOrigin(t, f.network, one, nil, protocols != nil, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				time.Sleep(time.Second)
				fmt.Fprint(w, len(b))
			})
			pr, pw := io.Pipe()
			go func() {
				for range 10 {
					time.Sleep(time.Second)
					io.WriteString(pw, "x")
				}
				pw.Close()
			}()
			res, err := f.client.Post("http://a.test/", "text/plain", pr)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || string(b) != "10" {
				t.Errorf("%d %s", res.StatusCode, b)
			}
		})
	}
}

func TestMirror(t *testing.T) {
	var mu sync.Mutex
	var got []string
	var m *l7.Mirror
	fronts(t, func(n *l4test.Network) http.Handler {
		got = nil
		m = &l7.Mirror{To: newProxy(n, two), BodyBytes: 100}
		p := newProxy(n, one)
		p.Mirror = m
		return p
	}, func(t *testing.T, f *front) {
		serveHTTP(t, f.network, one, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s", b)
		})
		serveHTTP(t, f.network, two, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			time.Sleep(time.Second) // never delays the original
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s %s %q", r.Method, r.RequestURI, b))
		})
		start := time.Now()
		f.get(t, "/a")
		post := func(body string) {
			res, err := f.client.Post("http://a.test/b", "text/plain", struct{ io.Reader }{strings.NewReader(body)})
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		post("body")
		post(strings.Repeat("x", 101))
		if d := time.Since(start); d != 0 {
			t.Errorf("took %v", d)
		}
		m.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{`GET /a ""`, `POST /b "body"`}; len(got) != 2 || got[0] != want[0] && got[1] != want[0] || m.Dropped() != 1 {
			t.Errorf("the shadow saw %q, %d dropped; want %q, 1", got, m.Dropped(), want)
		}
	})
}

// CONNECT opens a tunnel by way of a server that is a proxy itself.
func TestProxyConnect(t *testing.T) {
	fronts(t, func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Connect = true
		return p
	}, func(t *testing.T, f *front) {
		serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if r.Host != "db.test:5432" {
				io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello ")
			io.Copy(c, br)
		})
		c := f.dial(t)
		c.send("CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\nworld")
		head, _ := c.br.ReadString('\n')
		for line := head; line != "\r\n"; line, _ = c.br.ReadString('\n') {
			if strings.HasPrefix(line, "Upgrade") || strings.HasPrefix(line, "Transfer") || strings.HasPrefix(line, "Content-Length") {
				t.Errorf("line %q in a reply to CONNECT", line)
			}
		}
		b := make([]byte, 11)
		if _, err := io.ReadFull(c.br, b); err != nil || string(b) != "hello world" || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
			t.Errorf("got %q, %q, %v", head, b, err)
		}
		c.Close()
		f.dial(t).send("CONNECT other:1 HTTP/1.1\r\nHost: other:1\r\n\r\n").wantReply(403, "no")
	})
}

func TestProxyVia(t *testing.T) {
	fronts(t, func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Via = "gate"
		return p
	}, func(t *testing.T, f *front) {
		serveHTTP(t, f.network, one, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Header["Via"])
		})
		res := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 old\r\n\r\n").wantReply(200, "[1.0 old 1.1 gate]")
		if v := res.Header.Get("Via"); v != "1.1 gate" {
			t.Errorf("Via of the reply = %q", v)
		}
	})
}

// A connection that has been logged in is nobody else's.
func TestProxyConnectionLogin(t *testing.T) {
	fronts(t, proxyTo(one), func(t *testing.T, f *front) {
		var conns atomic.Int32
		serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
			conns.Add(1)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM TlRMTVNTUAAC\r\nContent-Length: 0\r\n\r\n")
			}
		})
		for range 2 { // clients
			f.dial(t).send(getA).wantReply(401, "")
		}
		if conns.Load() != 2 {
			t.Errorf("%d connections; want 2", conns.Load())
		}
	})
}
