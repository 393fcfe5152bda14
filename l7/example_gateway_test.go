// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

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
	fmt.Println(show(h, "/cart").Header.Get("Location"))
	show(h, "/cart", "Cookie", "session=ann", "X-Auth-Request-User", "root")
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
	show(h, "/report")
	// Output: 502 502 Bad Gateway
}

// One switch for all faults of a program.
func ExampleFault() {
	var faults atomic.Bool
	h := &l7.Fault{Active: faults.Load, Match: l7.Header{Name: "X-Test", Value: "fail"}, Status: 503, Next: app}
	show(h, "/", "X-Test", "fail")
	faults.Store(true)
	show(h, "/", "X-Test", "fail")
	show(h, "/")
	// Output:
	// 200 GET example.com/
	// 503 503 Service Unavailable
	// 200 GET example.com/
}
