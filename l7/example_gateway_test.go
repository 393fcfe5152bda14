// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// An example is shown with what it uses of its own file, but not with what is in another one:
// so each file of examples has its own helpers. TestExamplesAreWhole checks that.

// ask asks h and prints what it answers. Fields are names and values.
func ask(h http.Handler, target string, fields ...string) *http.Response {
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

// poolOf returns a pool of servers that live in this process and say their names.
func poolOf(names ...string) *balance.Pool {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	var list []balance.Endpoint
	for _, name := range names {
		list = append(list, balance.Endpoint{Name: name, Addr: name + ":80", Value: &l7.FixedReply{Body: "I am " + name}})
	}
	if err := p.Set(list...); err != nil {
		panic(err)
	}
	return p
}

// Whatever HAProxy sees can be matched, and combined.
func ExampleAll() {
	inside := l7.All{
		l7.Host("*.example.com"),
		l7.Any{l7.Method("GET"), l7.Method("HEAD")},
		l7.Not(l7.PathPrefix("/admin")),
	}
	h := l7.NewRouter(l7.Route{Match: inside, Handler: &l7.FixedReply{Body: "the site"}})
	ask(h, "http://www.example.com/")
	ask(h, "http://www.example.com/admin/users")
	// Output:
	// 200 the site
	// 404 404 Not Found
}

// One request in twenty, the slowest, is sent to a second server as well.
func ExampleHedge() {
	h := &l7.Proxy{Pool: poolOf("a", "b"), Hedge: l7.Hedge{Delay: 10 * time.Millisecond, Quantile: 0.95}}
	ask(h, "/")
	// Output: 200 I am a
}

// An Upstream holds the connections to servers; proxies share one.
func ExampleUpstream() {
	up := &l7.Upstream{
		MaxIdle:     100,
		IdleTimeout: 30 * time.Second,
		MaxAge:      time.Hour, // so that servers behind a name can move
		Reuse:       l7.ReuseSafe,
	}
	p := poolOf("a")
	ask(&l7.Proxy{Pool: p, Upstream: up}, "/")
	resp, err := (&http.Client{Transport: &l7.Transport{Pool: p, Upstream: up}}).Get("http://web.example/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output:
	// 200 I am a
	// 200
}

func ExampleRetry() {
	h := &l7.Proxy{Pool: poolOf("a", "b"), Retry: l7.Retry{
		Tries:    3,                     // at most, on different servers
		Statuses: []int{502, 503},       // besides tries that got no reply
		Backoff:  10 * time.Millisecond, // at random up to this, twice it, ...
	}}
	ask(h, "/")
	// Output: 200 I am a
}

// A server that is slow gets up to a second; then another one is asked as well. A list of
// classes replaces the default, so Timeout is added to that.
func ExampleDefaultRetryClasses() {
	h := &l7.Proxy{Pool: poolOf("a", "b"), TryTimeout: time.Second, Retry: l7.Retry{
		Classes: append(l7.DefaultRetryClasses(), balance.Timeout),
	}}
	fmt.Println(h.Retry.Classes)
	ask(h, "/")
	// Output:
	// [connect failed connect timeout tls failed reset stale timeout]
	// 200 I am a
}

// A login service, such as oauth2-proxy, decides about all requests but those for
// itself.
func ExampleForwardAuth() {
	login := &balance.Pool{Name: "login"}
	err := login.Set(balance.Endpoint{Name: "here", Addr: "here:80", Value: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { // stands for the service
			user, ok := strings.CutPrefix(r.Header.Get("Cookie"), "session=")
			if !ok {
				http.Redirect(w, r, "/oauth2/start?rd="+r.Header.Get("X-Forwarded-Uri"), http.StatusFound)
				return
			}
			w.Header().Set("X-Auth-Request-User", user)
		})})
	if err != nil {
		panic(err)
	}
	h := l7.NewRouter(
		l7.Route{Match: l7.PathPrefix("/oauth2/"), Handler: &l7.Proxy{Pool: login}},
		l7.Route{Handler: &l7.ForwardAuth{
			Service:   &l7.Proxy{Pool: login, Timeout: 5 * time.Second},
			Fields:    []string{"Authorization", "Cookie", "Accept"},
			ToRequest: []string{"X-Auth-Request-User", "X-Auth-Request-Email"},
			ToClient:  []string{"Set-Cookie"},
			UserField: "X-Auth-Request-User",
			KeepFor:   10 * time.Second, Key: l7.ByHost,
			Next: l7.HandlerFunc(func(x *l7.Exchange) {
				x.Respond(200, nil, "hello "+x.Header.Get("X-Auth-Request-User"))
			}),
		}},
	)
	fmt.Println(ask(h, "/cart").Header.Get("Location"))
	ask(h, "/cart", "Cookie", "session=ann", "X-Auth-Request-User", "root")
	// Output:
	// 302 <a href="/oauth2/start?rd=/cart">Found</a>.
	// /oauth2/start?rd=/cart
	// 200 hello ann
}

// Replies of up to 256 KiB are held back: a report that breaks off is a 502.
func ExampleBufferReply() {
	servers := &balance.Pool{Name: "reports"}
	if err := servers.Set(balance.Endpoint{Addr: "127.0.0.1:9"}); err != nil { // where nobody listens
		panic(err)
	}
	h := &l7.BufferReply{MaxBytes: 256 << 10, Timeout: 20 * time.Second, Next: &l7.Proxy{Pool: servers, Logger: slog.New(slog.DiscardHandler)}}
	ask(h, "/report")
	// Output: 502 502 Bad Gateway
}

// One switch for all faults of a program.
func ExampleFault() {
	var faults atomic.Bool
	h := &l7.Fault{Active: faults.Load, Match: l7.Header{Name: "X-Test", Value: "fail"}, Status: 503, Next: &l7.FixedReply{Body: "all is well"}}
	ask(h, "/", "X-Test", "fail")
	faults.Store(true)
	ask(h, "/", "X-Test", "fail")
	ask(h, "/")
	// Output:
	// 200 all is well
	// 503 503 Service Unavailable
	// 200 all is well
}
