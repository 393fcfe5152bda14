// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// app stands for what is behind the middleware of an example.
var app = l7.HandlerFunc(func(x *l7.Exchange) {
	x.Respond(http.StatusOK, nil, x.Method+" "+x.Host+x.Path+x.Query)
})

// show asks h and prints what it answers. Fields are names and values.
func show(h http.Handler, target string, fields ...string) *http.Response {
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

// member is a server that lives in this process and says its name.
func member(name string) balance.Endpoint {
	return balance.Endpoint{Name: name, Addr: name + ":80", Value: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "I am ", name) })}
}

func pool(names ...string) *balance.Pool {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	var list []balance.Endpoint
	for _, n := range names {
		list = append(list, member(n))
	}
	if err := p.Set(list...); err != nil {
		panic(err)
	}
	return p
}

func ExampleRouter() {
	r := &l7.Router{Order: l7.Specific}
	err := r.Set(
		l7.Route{Name: "site", Handler: &l7.FixedReply{Body: "the site"}},
		l7.Route{Name: "api", Match: l7.All{l7.Host("api.example.com"), l7.PathPrefix("/v1")}, Handler: app},
		l7.Route{Name: "user", Match: l7.PathPattern("/users/{id}"), Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			x.Respond(200, nil, "user "+l7.PathValue(x, "id"))
		})},
	)
	if err != nil {
		panic(err)
	}
	show(r, "http://api.example.com/v1/things?all")
	show(r, "http://www.example.com/users/7")
	show(r, "http://www.example.com/")
	// Output:
	// 200 GET api.example.com/v1/things?all
	// 200 user 7
	// 200 the site
}

func ExampleRouter_Set() {
	var r l7.Router
	err := r.Set(
		l7.Route{Name: "all", Match: l7.PathPrefix("/"), Handler: app},
		l7.Route{Name: "api", Match: l7.PathPrefix("/api"), Handler: app},
	)
	fmt.Println(err)
	// Output: l7: route 1 "api" is never reached: route 0 "all" matches all that it does
}

func ExampleRouter_Explain() {
	r := l7.NewRouter(
		l7.Route{Name: "beta", Match: l7.Cookie{Name: "beta"}, Handler: app},
		l7.Route{Name: "all", Handler: app},
	)
	show(l7.HandlerFunc(func(x *l7.Exchange) {
		for _, e := range r.Explain(x) {
			fmt.Println(e)
		}
		x.Respond(200, nil, "")
	}), "/")
	// Output:
	// 0 "beta": no Cookie(beta)
	// 1 "all": taken
	// 200
}

func ExampleRouter_ExplainRequest() {
	r := l7.NewRouter(
		l7.Route{Name: "api", Match: l7.All{l7.Host("api.example"), l7.Method("GET")}, Handler: app},
		l7.Route{Name: "upload", Match: l7.All{l7.Host("api.example"), l7.PathPrefix("/files")}, Handler: app},
	)
	req, _ := http.NewRequest("PUT", "http://api.example/files/1", nil)
	for _, e := range r.ExplainRequest(req) {
		fmt.Println(e)
	}
	// Output:
	// 0 "api": no Method(GET)
	// 1 "upload": taken
}

func ExampleLimit() {
	h := &l7.Limit[netip.Addr]{
		Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(2)}},
		Next:    app,
	}
	show(h, "/")
	show(h, "/")
	fmt.Println(show(h, "/").Header.Get("Retry-After"))
	// Output:
	// 200 GET example.com/
	// 200 GET example.com/
	// 429 429 Too Many Requests
	// 30
}

// Several gateways keep one limit for each API key. A request without a key has no limit:
// it passes, unless an Access before the limit refuses it. A key that was made up would get
// tokens of its own, so the Access lets only known ones pass.
func ExampleLimit_sharedByAPIKey() {
	known := map[string]bool{"one": true, "two": true}
	key := l7.ByHeader("X-Api-Key")
	h := &l7.Access{
		Allow: l7.MatchFunc(func(x *l7.Exchange) bool {
			k, ok := key(x)
			return ok && known[k]
		}),
		Refuse: &l7.Deny{Status: http.StatusUnauthorized},
		Next: &l7.Limit[string]{
			Limiter: &ratelimit.Shared[string]{
				Store: &ratelimit.MemoryStore{}, // in production a redisstore.Store
				Law:   ratelimit.GCRA{Rate: ratelimit.PerMinute(2)},
			},
			Key:  key,
			Next: app,
		},
	}
	show(h, "/")
	show(h, "/", "X-Api-Key", "made up")
	for range 3 {
		show(h, "/", "X-Api-Key", "one")
	}
	show(h, "/", "X-Api-Key", "two")
	// Output:
	// 401 401 Unauthorized
	// 401 401 Unauthorized
	// 200 GET example.com/
	// 200 GET example.com/
	// 429 429 Too Many Requests
	// 200 GET example.com/
}

func ExampleGate() {
	h := &l7.Gate{Places: &ratelimit.Concurrency{Max: 100, MaxQueue: 1000, MaxWait: time.Second}, Next: app}
	show(h, "/")
	// Output: 200 GET example.com/
}

// A circuit breaker: a pool whose servers all fail is asked no more for a while.
func ExampleCircuitBreaker() {
	down := &balance.Pool{Name: "down"}
	err := down.Set(balance.Endpoint{Name: "a", Addr: "a:80", Value: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "out of order", http.StatusInternalServerError)
		})})
	if err != nil {
		log.Fatal(err)
	}
	h := &l7.CircuitBreaker{
		Breaker: &ratelimit.Breaker{Share: 0.5, Volume: 3, Open: time.Minute},
		Refuse:  &l7.FixedReply{Status: 503, Body: "please come back later"},
		Next:    &l7.Proxy{Pool: down},
	}
	for range 4 {
		show(h, "/")
	}
	fmt.Println(h.Breaker.State())
	// Output:
	// 500 out of order
	// 500 out of order
	// 500 out of order
	// 503 please come back later
	// open
}

// A bulkhead: the reports may take ten places, and if they hang, all else goes on.
func ExampleGate_bulkhead() {
	h := l7.NewRouter(
		l7.Route{Match: l7.PathPrefix("/reports"), Handler: &l7.Gate{Places: &ratelimit.Concurrency{Max: 10}, Next: app}},
		l7.Route{Handler: &l7.Gate{Places: &ratelimit.Concurrency{Max: 1000}, Next: app}},
	)
	show(h, "/reports/2026")
	// Output: 200 GET example.com/reports/2026
}

// Load shedding: when this machine has more to do than it can, a share of the requests is
// refused at once, and of those for exports before others.
func ExampleGate_loadShedding() {
	h := l7.NewRouter(
		l7.Route{Match: l7.PathPrefix("/export"), Handler: &l7.Gate{Places: &ratelimit.Shedder{Target: 0.5}, Next: app}},
		l7.Route{Handler: &l7.Gate{Places: &ratelimit.Shedder{Target: 0.8}, Next: app}},
	)
	show(h, "/")
	// Output: 200 GET example.com/
}

func ExampleEditHeader() {
	h := &l7.EditHeader{
		Request: []l7.FieldEdit{
			l7.SetField{Name: "X-Client", From: func(x *l7.Exchange) string { return x.Client.String() }},
			l7.DelField{Prefix: "X-Debug-"},
		},
		Reply: []l7.FieldEdit{l7.SetField{Name: "X-Frame-Options", Value: "DENY"}},
		Next: l7.HandlerFunc(func(x *l7.Exchange) {
			x.Respond(200, nil, fmt.Sprint(x.Header.Get("X-Client"), x.Header.Has("X-Debug-All")))
		}),
	}
	fmt.Println(show(h, "/", "X-Debug-All", "1").Header.Get("X-Frame-Options"))
	// Output:
	// 200 192.0.2.1false
	// DENY
}

func ExampleWrap() {
	noFrames := func(next http.Handler) http.Handler { // as those of any library
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Frame-Options", "DENY")
			next.ServeHTTP(w, r)
		})
	}
	h := &l7.Wrap{With: noFrames, Next: app}
	fmt.Println(show(h, "/api").Header.Get("X-Frame-Options"))
	// Output:
	// 200 GET example.com/api
	// DENY
}

func ExampleRewrite() {
	show(&l7.Rewrite{StripPrefix: "/api", Host: "inner.example", Next: app}, "/api/v1?q")
	show(&l7.Rewrite{Regexp: regexp.MustCompile(`^/u/(\d+)`), With: "/users/$1", Next: app}, "/u/7/files")
	// Output:
	// 200 GET inner.example/v1?q
	// 200 GET example.com/users/7/files
}

func ExampleRedirect() {
	h := &l7.Redirect{Scheme: "https", Status: http.StatusPermanentRedirect}
	fmt.Println(show(h, "http://example.com:8080/a?b").Header.Get("Location"))
	// Output:
	// 308
	// https://example.com/a?b
}

// The gateway's HTTPS is not on port 443.
func ExampleRedirect_port() {
	h := &l7.Redirect{Scheme: "https", Port: 8443}
	fmt.Println(show(h, "http://example.com:8080/a?b").Header.Get("Location"))
	fmt.Println(show(h, "http://[2001:db8::1]/").Header.Get("Location"))
	// Output:
	// 302
	// https://example.com:8443/a?b
	// 302
	// https://[2001:db8::1]:8443/
}

func ExampleAccess() {
	office := netip.MustParsePrefix("192.0.2.0/24")
	show(&l7.Access{Allow: l7.ClientIn{office}, Next: app}, "/")
	show(&l7.Access{Deny: l7.ClientIn{office}, Refuse: &l7.Deny{Status: 404}, Next: app}, "/")
	// Output:
	// 200 GET example.com/
	// 404 404 Not Found
}

func ExampleBasicAuth() {
	h := &l7.BasicAuth{Realm: "staff", Verify: l7.Passwords(map[string]string{"ann": "one"}), Next: app}
	fmt.Println(show(h, "/").Header.Get("WWW-Authenticate"))
	show(h, "/", "Authorization", "Basic YW5uOm9uZQ==")
	// Output:
	// 401 401 Unauthorized
	// Basic realm="staff", charset="UTF-8"
	// 200 GET example.com/
}

func ExampleNormalize() {
	show(&l7.Normalize{DecodeUnreserved: true, MergeSlashes: true, DotSegments: true, Next: app}, "/a//%7Euser/../b")
	// Output: 200 GET example.com/a/b
}

func ExamplePersist() {
	p := pool("a", "b")
	h := &l7.Persist{Pool: p, Next: &l7.Proxy{Pool: p}}
	cookie := show(h, "/").Cookies()[0]
	show(h, "/", "Cookie", cookie.Name+"="+cookie.Value)
	show(h, "/")
	// Output:
	// 200 I am a
	// 200 I am a
	// 200 I am b
}

func ExampleStick() {
	p := pool("a", "b")
	h := &l7.Stick{Key: l7.ByHeader("X-Session"), Next: &l7.Proxy{Pool: p}}
	show(h, "/", "X-Session", "1")
	show(h, "/", "X-Session", "1")
	show(h, "/", "X-Session", "2")
	// Output:
	// 200 I am a
	// 200 I am a
	// 200 I am b
}

func ExampleSplit() {
	h := l7.NewSplit(l7.Arm{Name: "blue", Weight: 99, Handler: app}, l7.Arm{Name: "green", Weight: 1, Handler: app})
	h.Key, h.Field = l7.ByCookie("user"), "X-Arm"
	first := show(h, "/", "Cookie", "user=ann").Header.Get("X-Arm")
	again := show(h, "/", "Cookie", "user=ann").Header.Get("X-Arm")
	fmt.Println(first == again)
	// Output:
	// 200 GET example.com/
	// 200 GET example.com/
	// true
}

func ExampleFallback() {
	near, far := pool("near"), pool("far")
	h := l7.Fallback{{Pool: near, Handler: &l7.Proxy{Pool: near}}, {Pool: far, Handler: &l7.Proxy{Pool: far}}}
	show(h, "/")
	near.Server("near").SetAdmin(balance.Maint, "repair")
	show(h, "/")
	// Output:
	// 200 I am near
	// 200 I am far
}

func ExampleMap() {
	var tenants l7.Map[string]
	tenants.Set(l7.Entry[string]{Key: "example.com", Value: "acme"}, l7.Entry[string]{Key: "shop.example.com", Value: "acme shop"})
	fmt.Println(tenants.Domain("www.shop.example.com:443"))
	fmt.Println(tenants.Exact("www.example.com"))
	// Output:
	// acme shop true
	//  false
}

func ExampleAddrMap() {
	var zones l7.AddrMap[string]
	zones.Set(
		l7.PrefixEntry[string]{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Value: "inside"},
		l7.PrefixEntry[string]{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Value: "guests"})
	fmt.Println(zones.Lookup(netip.MustParseAddr("10.9.1.1")))
	// Output: guests true
}
