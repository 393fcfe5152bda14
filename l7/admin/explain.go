// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// An ExplainView says how a request would be routed, as GET .../explain returns
// it.
type ExplainView struct {
	Router string         `json:"router"`           // its name in Handler.Routers
	Routes []RouteVerdict `json:"routes"`           // as listed
	Taken  string         `json:"taken"`            // name of the route that would serve; "" if none would
	Inner  []ExplainView  `json:"inner,omitempty"`  // of routers behind that route
	Limits []LimitVerdict `json:"limits,omitempty"` // that it would pass
	Pools  []PoolVerdict  `json:"pools,omitempty"`  // that its handlers may use
}

// A RouteVerdict says whether a route matches.
type RouteVerdict struct {
	Name    string `json:"name"`          // of the route
	Matches bool   `json:"matches"`       // the request
	Taken   bool   `json:"taken"`         // it is the one that would serve
	Why     string `json:"why,omitempty"` // the matcher that does not match
}

// A LimitVerdict is a limit that the request would meet.
type LimitVerdict struct {
	Policy    string  `json:"policy,omitempty"` // as l7.Limit has it
	Known     bool    `json:"known"`            // the fields below are known: the limit is by address and ?client= was given
	OK        bool    `json:"ok"`               // one more would be admitted
	Remaining int     `json:"remaining"`        // that would be admitted at once
	Reset     float64 `json:"reset"`            // seconds until the limit is full again; 0 if it is, or if not known
}

// A PoolVerdict is a pool, and why each of its servers is used or not.
type PoolVerdict struct {
	Name    string          `json:"name"`    // of the pool
	Servers []ServerVerdict `json:"servers"` // as in its Set
}

// A ServerVerdict says why a server is used or not.
type ServerVerdict struct {
	Name   string `json:"name"`             // of the server
	Used   bool   `json:"used"`             // it takes new work
	State  string `json:"state"`            // balance.State in a word
	Reason string `json:"reason,omitempty"` // why it is not used, or other information
}

// serveExplain answers how a request would be routed.
func (h *Handler) serveExplain(w http.ResponseWriter, r *http.Request) {
	req, err := explained(r.URL.Query())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	body, ok := h.explain(r, req)
	if ok {
		send(w, "application/json", body)
	}
}

// explain returns what h says of req; ok is false if the viewer has left.
func (h *Handler) explain(r, req *http.Request) (body []byte, ok bool) {
	done, ok := h.turn(r.Context())
	if !ok {
		return nil, false
	}
	defer done()
	q := r.URL.Query()
	client, _ := netip.ParseAddr(q.Get("client"))
	all := []ExplainView{}
	for _, name := range slices.Sorted(maps.Keys(h.Routers)) {
		if only := q.Get("router"); only == "" || only == name {
			all = append(all, explainRouter(name, h.Routers[name], req, client, 0))
		}
	}
	body, err := json.Marshal(all)
	return body, err == nil
}

// explained makes the request to explain.
func explained(q map[string][]string) (*http.Request, error) {
	get := func(name, none string) string {
		if v := q[name]; len(v) > 0 && v[0] != "" {
			return v[0]
		}
		return none
	}
	req, err := http.NewRequest(get("method", "GET"), get("url", "/"), nil)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	if len(q["header"]) > 100 {
		return nil, badRequest("too many header fields")
	}
	for _, line := range q["header"] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, badRequest("header must be \"Name: value\"")
		}
		if value = strings.TrimSpace(value); strings.EqualFold(name, "Host") {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	if req.Host == "" {
		req.Host = "localhost"
	}
	req.RequestURI = req.URL.RequestURI()
	if c, err := netip.ParseAddr(get("client", "")); err == nil {
		req.RemoteAddr = netip.AddrPortFrom(c, 1).String()
	}
	return req, nil
}

// explainRouter returns what r would do with req.
func explainRouter(name string, r *l7.Router, req *http.Request, client netip.Addr, depth int) ExplainView {
	v := ExplainView{Router: name, Routes: []RouteVerdict{}}
	for _, e := range r.ExplainRequest(req) {
		v.Routes = append(v.Routes, RouteVerdict{e.Route, e.Matches, e.Taken, e.Why})
		if e.Taken {
			v.Taken = e.Route
			w := walk{view: &v, req: req, client: client, depth: depth, seen: make(map[any]bool)}
			w.value(reflect.ValueOf(e.Handler), 0)
		}
	}
	return v
}

// maxDepth and maxSteps bound how far handlers are followed.
const maxDepth, maxSteps = 32, 10000

// A walk follows the exported fields of handlers, including those of the host, to
// routers, limits and pools.
type walk struct {
	view   *ExplainView
	req    *http.Request
	client netip.Addr
	depth  int
	seen   map[any]bool
	steps  int
}

// value visits the value of a field.
func (w *walk) value(v reflect.Value, depth int) {
	if w.steps++; depth > maxDepth || w.steps > maxSteps {
		return
	}
	switch v.Kind() {
	case reflect.Interface:
		if !v.IsNil() {
			w.value(v.Elem(), depth)
		}
	case reflect.Pointer:
		if v.IsNil() || w.seen[v.Interface()] {
			return
		}
		w.seen[v.Interface()] = true
		switch x := v.Interface().(type) {
		case *balance.Pool:
			w.pool(x)
		case *l7.Router:
			if w.depth < maxDepth {
				w.view.Inner = append(w.view.Inner, explainRouter("", x, w.req, w.client, w.depth+1))
			}
		default:
			w.value(v.Elem(), depth+1)
		}
	case reflect.Slice, reflect.Array:
		for i := range min(v.Len(), 100) {
			w.value(v.Index(i), depth+1)
		}
	case reflect.Struct:
		w.fields(v, depth)
	}
}

// fields visits the fields of a struct that may lead to a handler or a pool.
func (w *walk) fields(v reflect.Value, depth int) {
	t := v.Type()
	if ours := strings.HasPrefix(t.PkgPath(), "github.com/penstock-lb/penstock/l7"); ours && strings.HasPrefix(t.Name(), "Limit[") {
		w.limit(v)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.IsExported() && f.Type.Kind() != reflect.Func && f.Name != "Refuse" && f.Name != "Upstream" && f.Name != "Mirror" {
			if leads(f.Type) {
				w.value(v.Field(i), depth+1)
			}
		}
	}
}

// leads reports whether a value of that type may hold a handler or a pool.
func leads(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return leads(t.Elem())
	case reflect.Struct, reflect.Interface:
		return true
	case reflect.Pointer:
		return t.Elem().Kind() == reflect.Struct
	}
	return false
}

func (w *walk) pool(p *balance.Pool) {
	v := PoolVerdict{Name: p.Name, Servers: []ServerVerdict{}}
	for _, e := range p.Explain() {
		v.Servers = append(v.Servers, ServerVerdict{e.Server.Name(), e.Used, e.State.String(), e.Reason})
	}
	w.view.Pools = append(w.view.Pools, v)
}

// limit returns the state of a limit, if it can be known.
func (w *walk) limit(v reflect.Value) {
	l := LimitVerdict{Policy: v.FieldByName("Policy").String()}
	by, ok := v.FieldByName("Limiter").Interface().(interface {
		Take(key netip.Addr, n int) ratelimit.Decision
	})
	if key := v.FieldByName("Key"); ok && key.IsNil() && w.client.IsValid() {
		d := by.Take(client64(w.client), 0)
		l.Known, l.OK, l.Remaining = true, d.Remaining > 0 && !d.Banned, d.Remaining
		if d.Reset != ratelimit.Never {
			l.Reset = d.Reset.Seconds()
		}
	}
	w.view.Limits = append(w.view.Limits, l)
}

// client64 returns the key that a Limit without a Key uses.
func client64(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
