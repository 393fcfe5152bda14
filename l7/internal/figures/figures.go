// SPDX-License-Identifier: Apache-2.0

// Package figures is what l7/admin and l7/prom have in common: which parts of a gateway
// they show, under which names.
package figures

import (
	"cmp"
	"strconv"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// A Set is what is shown of a gateway. L, S and C are what the package that shows it
// needs of a limit, a server of connections and a health check.
type Set[L, S, C any] struct {
	Pools     []*balance.Pool
	Routers   map[string]*l7.Router
	Limits    map[string]L
	Servers   map[string]S
	Upstreams []*l7.Upstream
	Checks    []C
}

// Check adds to m what is wrong with s, the fields of a literal of type of.
func (s Set[L, S, C]) Check(m *penstock.Mistakes, of string) {
	names := make(map[string]bool)
	for i, p := range s.Pools {
		path := of + ".Pools[" + strconv.Itoa(i) + "]"
		if m.Need(path, p, "must be a pool"); p == nil {
			continue
		}
		name := PoolName(s.Pools, i)
		m.If(names[name], path+".Name", name, "is the name of another pool too")
		names[name] = true
		m.In(path, p)
	}
	for name, r := range s.Routers {
		need(m, of+".Routers["+name+"]", r, "must be a router")
	}
	for name, l := range s.Limits {
		need(m, of+".Limits["+name+"]", l, "must be a limiter")
	}
	for name, srv := range s.Servers {
		m.Need(of+".Servers["+name+"]", srv, "must be a server")
	}
	for i, u := range s.Upstreams {
		need(m, of+".Upstreams["+strconv.Itoa(i)+"]", u, "must be an Upstream")
	}
	for i, c := range s.Checks {
		need(m, of+".Checks["+strconv.Itoa(i)+"]", c, "must be a checker")
	}
}

func need(m *penstock.Mistakes, path string, v any, reason string) {
	m.Need(path, v, reason)
	m.In(path, v)
}

// PoolName returns what a pool is called: by its Name, or else by its place.
func PoolName(pools []*balance.Pool, i int) string {
	return cmp.Or(pools[i].Name, "pool "+strconv.Itoa(i+1))
}
