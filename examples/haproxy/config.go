// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// pools are the "backend" sections.
type pools struct{ web, static, db *balance.Pool }

func newPools(at servers) (pools, error) {
	p := pools{
		web:    &balance.Pool{Name: "web", Policy: balance.LeastConn{}, SlowStart: balance.SlowStart{Window: 30 * time.Second}},
		static: &balance.Pool{Name: "static", Policy: balance.RoundRobin{}},
		db:     &balance.Pool{Name: "db", Policy: balance.First{}},
	}
	return p, errors.Join(
		p.web.Set(
			balance.Endpoint{Name: "web1", Addr: at.web[0], MaxConns: 100},
			balance.Endpoint{Name: "web2", Addr: at.web[1], MaxConns: 100, Weight: 2}),
		p.static.Set(balance.Endpoint{Name: "static1", Addr: at.static[0]}),
		p.db.Set(
			balance.Endpoint{Name: "primary", Addr: at.primary, MaxConns: 200},
			balance.Endpoint{Name: "standby", Addr: at.standby, Tier: 1}))
}

// webSite is "frontend www", mode http.
func webSite(p pools) http.Handler {
	inside := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
	web := &l7.Persist{Pool: p.web, Name: "SRV", Next: &l7.Proxy{Pool: p.web}}
	routes := l7.NewRouter(
		l7.Route{Name: "admin", Match: l7.All{l7.PathPrefix("/admin"), l7.Not(l7.ClientIn(inside))}, Handler: &l7.Deny{}},
		l7.Route{Name: "old", Match: l7.Host("old.example.com"), Handler: &l7.Redirect{Host: "www.example.com", Status: http.StatusMovedPermanently}},
		l7.Route{Name: "static", Match: l7.Any{l7.PathPrefix("/static"), l7.PathSuffix(".png")}, Handler: &l7.Proxy{Pool: p.static}},
		l7.Route{Name: "web", Handler: web},
	)
	return &l7.Monitor{Path: "/haproxy-alive", Next: &l7.Limit[netip.Addr]{
		Limiter: &ratelimit.Keyed[netip.Addr]{Max: 100_000, Law: ratelimit.Window{
			Rate: ratelimit.Rate{Count: 100, Per: 10 * time.Second}, CountRefused: true,
		}},
		Next: &l7.EditHeader{
			Request: []l7.FieldEdit{l7.SetField{Name: "X-Env", Value: "prod"}},
			Reply:   []l7.FieldEdit{l7.DelField{Prefix: "X-Internal-"}},
			Next:    routes,
		},
	}}
}

// database is "listen db", mode tcp.
func database(p pools) l4.Handler {
	return &l4.Proxy{Pool: p.db, ConnectTimeout: 5 * time.Second, IdleTimeout: 30 * time.Minute, CutOnDown: true}
}

func webCheck(p pools) *health.Checker {
	return &health.Checker{
		Pools: []*balance.Pool{p.web, p.static}, Probe: health.HTTP{Path: "/healthz"},
		Interval: 2 * time.Second, Rise: 2, Fall: 3,
	}
}

func dbCheck(p pools) *health.Checker {
	return &health.Checker{Pools: []*balance.Pool{p.db}, Interval: time.Second, CutDown: true}
}
