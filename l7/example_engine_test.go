// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// Whatever HAProxy sees can be matched, and combined.
func ExampleAll() {
	inside := l7.All{
		l7.Host("*.example.com"),
		l7.Any{l7.Method("GET"), l7.Method("HEAD")},
		l7.Not(l7.PathPrefix("/admin")),
	}
	h := l7.NewRouter(l7.Route{Match: inside, Handler: app})
	show(h, "http://www.example.com/")
	show(h, "http://www.example.com/admin/users")
	// Output:
	// 200 GET www.example.com/
	// 404 404 Not Found
}

// One request in twenty, the slowest, is sent to a second server as well.
func ExampleHedge() {
	h := &l7.Proxy{Pool: pool("a", "b"), Hedge: l7.Hedge{Delay: 10 * time.Millisecond, Quantile: 0.95}}
	show(h, "/")
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
	p := pool("a")
	show(&l7.Proxy{Pool: p, Upstream: up}, "/")
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
	h := &l7.Proxy{Pool: pool("a", "b"), Retry: l7.Retry{
		Tries:    3,                     // at most, on different servers
		Statuses: []int{502, 503},       // besides tries that got no reply
		Backoff:  10 * time.Millisecond, // at random up to this, twice it, ...
	}}
	show(h, "/")
	// Output: 200 I am a
}
