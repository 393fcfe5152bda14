// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// call asks h and prints what it answers. Fields are names and values.
func call(h http.Handler, target string, fields ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", string(body))))
	return resp
}

// server is one that lives in this process and says its name.
func server(name string) balance.Endpoint {
	return balance.Endpoint{Name: name, Addr: name + ":80", Value: &l7.FixedReply{Body: "I am " + name}}
}

func servers(names ...string) *balance.Pool {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	var list []balance.Endpoint
	for _, n := range names {
		list = append(list, server(n))
	}
	if err := p.Set(list...); err != nil {
		panic(err)
	}
	return p
}

func ExampleRequestID() {
	h := &l7.RequestID{
		New:   func(x *l7.Exchange) string { return "gw1-0001" }, // 128 random bits without it
		Reply: true,
		Next: l7.HandlerFunc(func(x *l7.Exchange) {
			x.Respond(200, nil, "the server sees "+x.Header.Get("X-Request-Id"))
		}),
	}
	fmt.Println(call(h, "/", "X-Request-Id", "who knows whose").Header.Get("X-Request-Id"))
	// Output:
	// 200 the server sees gw1-0001
	// gw1-0001
}

func ExampleMonitor() {
	p := servers("a")
	h := &l7.Monitor{Path: "/_alive", Fail: func() bool { return p.Usable() == 0 }, Next: &l7.FixedReply{Body: "the app"}}
	call(h, "/_alive")
	p.Server("a").SetAdmin(balance.Maint, "repair")
	call(h, "/_alive")
	call(h, "/")
	// Output:
	// 200 OK
	// 503 503 Service Unavailable
	// 200 the app
}

func ExampleErrorPages_make() {
	h := &l7.ErrorPages{
		Make: func(x *l7.Exchange, status int, err error) *l7.FixedReply {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return &l7.FixedReply{Status: 504, Body: "too slow, try again\n"}
			}
			return nil // Pages, or a line of text
		},
		Next: l7.HandlerFunc(func(x *l7.Exchange) {
			x.Record.Err = os.ErrDeadlineExceeded
			x.Error(502, l4.Termination{Cause: l4.ServerTimeout, Phase: l4.PhaseHeaders})
		}),
	}
	call(h, "/")
	// Output:
	// 504 too slow, try again
}

func ExampleReply_Refuse() {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.OnReply(l7.ReplyFunc(func(x *l7.Exchange, r *l7.Reply) {
			if r.Header.Has("X-Internal") {
				r.Refuse(errors.New("an internal page"))
			}
		}))
		l7.Serve(&l7.FixedReply{Header: l7.MakeFields("X-Internal", "1"), Body: "secret"}, x)
	})
	call(h, "/")
	// Output:
	// 502 502 Bad Gateway
}

// A page of the gateway's own in place of a server's 404, with the same status.
func ExampleReply_Refuse_notFound() {
	site := new(balance.Pool)
	_ = site.Set(balance.Endpoint{Name: "a", Addr: "a:80", Value: http.NotFoundHandler()})
	proxy := &l7.Proxy{Pool: site} // once: it has the connections to the servers
	errNotFound := errors.New("not found")
	h := &l7.ErrorPages{
		Make: func(x *l7.Exchange, status int, err error) *l7.FixedReply {
			if errors.Is(err, errNotFound) {
				return &l7.FixedReply{Status: 404, Header: l7.MakeFields("Content-Type", "text/html"), Body: "<h1>No such page</h1>"}
			}
			return nil
		},
		Next: l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(x *l7.Exchange, r *l7.Reply) {
				if r.Status == 404 {
					r.Refuse(errNotFound)
				}
			}))
			l7.Serve(proxy, x)
		}),
	}
	call(h, "/")
	// Output:
	// 404 <h1>No such page</h1>
}

func ExampleTo() {
	h := l7.To("https://a.example/base") // or several, of one pool
	gateway := &l7.Server{Addr: ":8080", Handler: h}
	fmt.Println(gateway.Check())
	gateway.Handler = l7.To("a.example")
	fmt.Println(gateway.Check())
	// Output:
	// <nil>
	// penstock: Server.Handler.To.URLs[0]: "a.example" must be a URL of http or https with a host, and with a path at most
}

func ExampleErrorPages() {
	h := &l7.ErrorPages{
		Pages: map[int]l7.FixedReply{
			404: {Header: l7.MakeFields("Content-Type", "application/json"), Body: `{"error":"no such thing"}`},
			0:   {Header: l7.MakeFields("Content-Type", "application/json"), Body: `{"error":"something else"}`},
		},
		Next: l7.NewRouter(l7.Route{Match: l7.Path("/secret"), Handler: &l7.Deny{}}),
	}
	call(h, "/nothing")
	call(h, "/secret")
	// Output:
	// 404 {"error":"no such thing"}
	// 403 {"error":"something else"}
}

func ExampleLimitBody() {
	h := &l7.LimitBody{MaxBytes: 10, Next: l7.HandlerFunc(func(x *l7.Exchange) {
		body, _ := io.ReadAll(x.Body())
		x.Respond(200, nil, string(body))
	})}
	for _, body := range []string{"short", "too long for this"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 413
}

func ExampleBufferBody() {
	h := &l7.BufferBody{MaxBytes: 10, Timeout: time.Second, Next: l7.HandlerFunc(func(x *l7.Exchange) {
		body, _ := io.ReadAll(x.Body()) // it is all there
		x.Respond(200, nil, strings.ToUpper(string(body)))
	})}
	for _, body := range []string{"short", "longer than ten"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 SHORT
	// 413 413 Request Entity Too Large
}

func ExampleHashBy() {
	p := &balance.Pool{Policy: balance.Rendezvous{}}
	if err := p.Set(server("a"), server("b"), server("c")); err != nil {
		panic(err)
	}
	h := &l7.HashBy[string]{Key: l7.ByHeader("X-Tenant"), Next: &l7.Proxy{Pool: p}}
	for range 3 {
		call(h, "/", "X-Tenant", "acme")
	}
	// Output:
	// 200 I am a
	// 200 I am a
	// 200 I am a
}

// Backends by name, from a table that can be swapped while it serves.
func ExampleChoose() {
	var backends l7.Map[http.Handler]
	backends.Set(l7.Entry[http.Handler]{Key: "shop.example", Value: &l7.FixedReply{Body: "the shop"}})
	h := &l7.Choose{
		By:      func(x *l7.Exchange) http.Handler { next, _ := backends.Domain(x.Host); return next },
		Default: &l7.FixedReply{Status: 421, Body: "whose host is that?"},
	}
	call(h, "http://www.shop.example/")
	call(h, "http://other.example/")
	// Output:
	// 200 the shop
	// 421 whose host is that?
}

func ExampleTarpit() {
	pit := &l7.Tarpit{Delay: 10 * time.Millisecond, Max: 100}
	h := l7.NewRouter(
		l7.Route{Match: l7.PathSuffix(".php"), Handler: pit}, // there is none here; who asks is a scanner
		l7.Route{Handler: &l7.FixedReply{Body: "the app"}},
	)
	start := time.Now()
	call(h, "/wp-login.php")
	fmt.Println(time.Since(start) >= pit.Delay)
	// Output:
	// 500 500 Internal Server Error
	// true
}

func ExampleFixedReply() {
	h := &l7.FixedReply{Header: l7.MakeFields("Content-Type", "text/plain"), Body: "User-agent: *\nDisallow: /\n"}
	call(h, "/robots.txt")
	// Output:
	// 200 User-agent: *
	// Disallow: /
}

func ExampleDeny() {
	call(l7.NewRouter(
		l7.Route{Match: l7.PathPrefix("/admin"), Handler: &l7.Deny{}},
		l7.Route{Match: l7.Path("/gone"), Handler: &l7.Deny{Status: http.StatusGone}},
	), "/admin/users")
	// Output: 403 403 Forbidden
}

func ExampleDrop() {
	srv := httptest.NewServer(&l7.Access{Deny: l7.Header{Name: "User-Agent", Value: "bot"}, Refuse: l7.Drop{}, Next: &l7.FixedReply{Body: "the app"}})
	defer srv.Close()
	req, _ := http.NewRequest("GET", srv.URL, nil)
	req.Header.Set("User-Agent", "bot")
	_, err := http.DefaultClient.Do(req)
	fmt.Println(err != nil)
	// Output: true
}

// A route that is passed over while less than two servers of its pool are
// usable.
func ExamplePoolUsable() {
	p := servers("a", "b")
	h := l7.NewRouter(
		l7.Route{Match: l7.PoolUsable{Pool: p, Min: 2}, Handler: &l7.Proxy{Pool: p}},
		l7.Route{Handler: &l7.FixedReply{Body: "the static page"}},
	)
	call(h, "/")
	p.Server("b").SetAdmin(balance.Drain, "update")
	call(h, "/")
	// Output:
	// 200 I am a
	// 200 the static page
}

func ExampleCapture() {
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		l7.Serve(&l7.Capture{
			Request: []string{"User-Agent"}, Reply: []string{"Location"}, Max: 20,
			Next: &l7.EditHeader{
				Request: []l7.FieldEdit{l7.DelField{Name: "User-Agent"}},
				Next:    &l7.Redirect{AddPrefix: "/new"},
			},
		}, x)
		for _, c := range x.Record.Captured { // as OnDone gets it
			fmt.Println(c.Name, c.Value)
		}
	})
	call(h, "/a", "User-Agent", "curl/8.5 and more than twenty bytes")
	// Output:
	// User-Agent curl/8.5 and more th
	// Location http://example.com/n
	// 302
}

func ExampleTrustForwarded() {
	proxies := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	h := &l7.TrustForwarded{Prefixes: proxies, Next: l7.HandlerFunc(func(x *l7.Exchange) {
		x.Respond(200, nil, "for "+x.Client.String())
	})}
	call(h, "/", "X-Forwarded-For", "8.8.8.8, 198.51.100.7, 192.0.2.9")
	// Output: 200 for 198.51.100.7
}

func ExampleStickTable() {
	sessions := &l7.StickTable{Max: 10_000, Expire: time.Hour}
	sessions.Remember("session 1", "a")
	fmt.Println(sessions.Lookup("session 1"))
	fmt.Println(sessions.Lookup("session 2"))
	// Output:
	// a true
	//  false
}

func ExamplePathPattern() {
	h := l7.NewRouter(l7.Route{
		Match: l7.All{l7.Method("GET"), l7.PathPattern("/users/{id}/files/{name...}")},
		Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			x.Respond(200, nil, l7.PathValue(x, "id")+" wants "+l7.PathValue(x, "name"))
		}),
	})
	call(h, "/users/7/files/a/b%20c.txt")
	call(h, "/users/7")
	// Output:
	// 200 7 wants a/b c.txt
	// 404 404 Not Found
}

func ExampleHTPasswd() {
	file := strings.NewReader("# staff\nann:{plain}one\n")
	check, err := l7.HTPasswd(file, func(hash, password string) bool { return hash == "{plain}"+password }) // bcrypt in life
	if err != nil {
		panic(err)
	}
	fmt.Println(check("ann", "one"), check("ann", "two"), check("eve", "one"))
	// Output: true false false
}

func ExampleReplaceField() {
	h := &l7.EditHeader{
		Request: []l7.FieldEdit{l7.ReplaceField{Name: "Cookie", Regexp: regexp.MustCompile(`debug=[^;]*`), With: "debug=0"}},
		Next:    l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, x.Header.Get("Cookie")) }),
	}
	call(h, "/", "Cookie", "a=1; debug=9; b=2")
	// Output: 200 a=1; debug=0; b=2
}

// What a host knows of a request is a matcher, too.
func ExampleMatchFunc() {
	var tenant l7.Key[string] // a value that handlers of one exchange share
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		tenant.Set(x, strings.SplitN(x.Host, ".", 2)[0])
		l7.Serve(l7.NewRouter(
			l7.Route{Match: l7.MatchFunc(func(x *l7.Exchange) bool { t, _ := tenant.Get(x); return t == "acme" }), Handler: &l7.FixedReply{Body: "the app"}},
		), x)
	})
	call(h, "http://acme.example/")
	call(h, "http://other.example/")
	// Output:
	// 200 the app
	// 404 404 Not Found
}

// Who has one IPv6 address has 2^64 of them: limits are by network.
func ExampleByClientNet() {
	by := l7.ByClientNet(32, 64)
	call(l7.HandlerFunc(func(x *l7.Exchange) {
		x.Client = netip.MustParseAddr("2001:db8::1")
		key, ok := by(x)
		fmt.Println(key, ok)
		x.Respond(204, nil, "")
	}), "/")
	// Output:
	// 2001:db8::/64 true
	// 204
}

// Two routes over one Upstream, each with timeouts and retries of its own.
func ExampleProxy() {
	up := &l7.Upstream{MaxIdle: 100}
	p := servers("a", "b")
	h := l7.NewRouter(
		l7.Route{Match: l7.PathPrefix("/reports"), Handler: &l7.Proxy{Pool: p, Upstream: up, Timeout: 5 * time.Minute, Retry: l7.Retry{Tries: -1}}},
		l7.Route{Handler: &l7.Proxy{Pool: p, Upstream: up, Timeout: 5 * time.Second, Retry: l7.Retry{Tries: 3, Statuses: []int{503}}}},
	)
	call(h, "/reports/1")
	call(h, "/")
	// Output:
	// 200 I am a
	// 200 I am b
}

func ExampleSetForwarded() {
	h := &l7.EditHeader{
		Request: []l7.FieldEdit{l7.SetForwarded{For: func(*l7.Exchange) string { return "_somebody" }, Proto: true}},
		Next:    l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, x.Header.Get("Forwarded")) }),
	}
	call(h, "/", "Forwarded", "for=6.6.6.6")
	// Output: 200 for="_somebody";proto=http
}

// A reply's body no faster than so many bytes a second, over all who ask.
func ExampleReply_FilterBody() {
	downloads := &ratelimit.Bandwidth{BytesPerSecond: 1 << 20}
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.OnReply(l7.ReplyFunc(func(x *l7.Exchange, r *l7.Reply) {
			r.FilterBody(func(body io.Reader) io.Reader { return downloads.Reader(x.Context(), body) })
		}))
		l7.Serve(&l7.FixedReply{Body: "the app"}, x)
	})
	call(h, "/")
	// Output: 200 the app
}
