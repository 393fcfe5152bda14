// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/ratelimit"
)

func ExampleHandler() {
	web := &balance.Pool{Name: "web"}
	_ = web.Set(balance.Endpoint{Name: "one", Addr: "10.0.0.1:80"}, balance.Endpoint{Name: "two", Addr: "10.0.0.2:80"})
	perClient := &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(10)}}
	routes := l7.NewRouter(l7.Route{Name: "all", Handler: &l7.Limit[netip.Addr]{Limiter: perClient, Next: &l7.Proxy{Pool: web}}})
	gateway := &l7.Server{Handler: routes}

	page := &admin.Handler{
		Pools:    []*balance.Pool{web},
		Routers:  map[string]*l7.Router{"public": routes},
		Limits:   map[string]admin.Limit{"per client": perClient},
		Servers:  map[string]admin.Server{"http": gateway},
		Allow:    func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer secret" },
		OnAction: func(a admin.Action) { fmt.Println("audit:", a.Do, a.Pool, a.Server, "-", a.Reason) },
	}
	// http.ListenAndServe("127.0.0.1:9090", page), and then:
	// curl -H 'Authorization: Bearer secret' -d pool=web -d server=one -d action=drain -d reason=deploy http://127.0.0.1:9090/action
	ask := httptest.NewRequest("POST", "http://127.0.0.1:9090/action", strings.NewReader("pool=web&server=one&action=drain&reason=deploy"))
	ask.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	ask.Header.Set("Authorization", "Bearer secret")
	page.ServeHTTP(httptest.NewRecorder(), ask)
	for _, e := range web.Explain() {
		fmt.Println(e)
	}
	// Output:
	// audit: drain web one - deploy
	// one: not used: drain: deploy
	// two: used
}
