// SPDX-License-Identifier: Apache-2.0

package prom_test

import (
	"bufio"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/prom"
	"github.com/penstock-lb/penstock/ratelimit"
)

func ExampleCollector() {
	web := &balance.Pool{Name: "web"}
	_ = web.Set(balance.Endpoint{Name: "one", Addr: "10.0.0.1:80"}, balance.Endpoint{Name: "two", Addr: "10.0.0.2:80"})
	perClient := &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(10)}}
	routes := l7.NewRouter(l7.Route{Name: "all", Handler: &l7.Limit[netip.Addr]{Limiter: perClient, Next: &l7.Proxy{Pool: web}}})
	gateway := &l7.Server{Handler: routes}

	registry := prometheus.NewRegistry()
	registry.MustRegister(&prom.Collector{
		Pools:   []*balance.Pool{web},
		Routers: map[string]*l7.Router{"public": routes},
		Limits:  map[string]prom.Limit{"per client": perClient},
		Servers: map[string]prom.Server{"http": gateway},
	})
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	// http.ListenAndServe("127.0.0.1:9090", metrics)

	web.Server("two").SetAdmin(balance.Drain, "deploy")
	reply := httptest.NewRecorder()
	metrics.ServeHTTP(reply, httptest.NewRequest("GET", "/metrics", nil))
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "penstock_server_used") || strings.HasPrefix(lines.Text(), "penstock_pool_usable") {
			fmt.Println(lines.Text())
		}
	}
	// Output:
	// penstock_pool_usable_servers{pool="web"} 1
	// penstock_server_used{pool="web",server="one"} 1
	// penstock_server_used{pool="web",server="two"} 0
}
