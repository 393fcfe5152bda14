// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/ratelimit"
)

var quiet = slog.New(slog.DiscardHandler)

// A world is a gateway without clients: what happens in it is done by hand.
type world struct {
	h     *admin.Handler
	web   *balance.Pool
	limit *ratelimit.Keyed[netip.Addr]
	leave []balance.Lease
}

// newWorld has a pool of n servers: "one" and so on.
func newWorld(t testing.TB, n int) *world {
	w := &world{web: &balance.Pool{Name: "web", Policy: balance.RoundRobin{}, Seed: 1}}
	require.NoError(t, w.web.Set(members(n)...))
	w.limit = &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}}
	routes := l7.NewRouter(
		l7.Route{Name: "api", Match: l7.PathPrefix("/api"), Handler: &l7.Limit[netip.Addr]{Limiter: w.limit, Policy: "perClient", Next: &l7.Proxy{Pool: w.web}}},
		l7.Route{Name: "rest", Match: l7.Method("GET"), Handler: &l7.Proxy{Pool: w.web}},
	)
	w.h = &admin.Handler{
		Title: "test", Pools: []*balance.Pool{w.web}, Routers: map[string]*l7.Router{"public": routes},
		Limits: map[string]admin.Limit{"per client": w.limit}, Servers: map[string]admin.Server{"https": &l7.Server{}},
		Allow: func(*http.Request) bool { return true }, Logger: quiet,
	}
	return w
}

func members(n int) []balance.Endpoint {
	names := []string{"one", "two", "three", "four", "five", "six"}
	set := make([]balance.Endpoint, n)
	for i := range set {
		name := fmt.Sprintf("app-%04d", i+1)
		if n <= len(names) {
			name = names[i]
		}
		set[i] = balance.Endpoint{Name: name, Addr: fmt.Sprintf("10.0.%d.%d:80", i/250, 1+i%250), Zone: string(rune('a' + i%3))}
	}
	return set
}

// work has each server that takes work do n pieces of it.
func (w *world) work(n int) {
	for range n * w.web.Usable() {
		l, err := w.web.Acquire(context.Background(), balance.Request{})
		if err != nil {
			return
		}
		o := balance.Outcome{Latency: time.Duration(2000+len(l.Server().Name())*150) * time.Microsecond}
		l.Done(o)
	}
}

// hold takes n leases of a server.
func (w *world) hold(name string, n int) {
	for range n {
		l, err := w.web.Acquire(context.Background(), balance.Request{Prefer: name})
		if err == nil {
			w.leave = append(w.leave, l)
		}
	}
}

// trouble is five faults.
func (w *world) trouble() {
	list := make([]*balance.Server, 0)
	for s := range w.web.All() {
		list = append(list, s)
	}
	list[0].Report(balance.Check, balance.Down, "connect: connection refused, 3 of 3")
	list[1].Report(balance.Outlier, balance.Down, "5 errors in a row, last status 503")
	w.hold(list[2].Name(), 3)
	list[2].SetAdmin(balance.Drain, "deploy of 2.4")
	reports := &balance.Pool{Name: "reports", Queue: balance.Queue{Timeout: -1}}
	_ = reports.Set(balance.Endpoint{Name: "big", Addr: "10.1.0.1:80", MaxConns: 2})
	w.h.Pools = append(w.h.Pools, reports)
	for range 7 {
		go func() { _, _ = reports.Acquire(context.Background(), balance.Request{}) }()
	}
	client := netip.MustParseAddr("192.0.2.1")
	for range 20 {
		w.limit.Take(client, 1)
	}
}

// do sends a request to the handler. Edits are header lines, "Name: value".
func (w *world) do(method, target, form string, edits ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, e := range edits {
		name, value, _ := strings.Cut(e, ": ")
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, r)
	return rec
}

// act does an action as a script does.
func (w *world) act(values ...string) *httptest.ResponseRecorder {
	f := url.Values{"pool": {"web"}, "server": {"one"}, "reason": {"test"}}
	for i := 0; i+1 < len(values); i += 2 {
		f.Set(values[i], values[i+1])
	}
	return w.do("POST", "/action", f.Encode())
}

// stub is a Prober and a Returner.
type stub struct {
	probed, returned string
	err              error
}

func (s *stub) Probed(*balance.Server) (time.Time, time.Duration, time.Time, error) {
	now := time.Now()
	return now.Add(-time.Second), 2 * time.Millisecond, now.Add(time.Second), s.err
}

func (s *stub) ProbeNow(x *balance.Server) bool {
	s.probed = x.Name()
	return x.Name() != "two"
}

func (s *stub) Return(x *balance.Server, reason string) bool {
	s.returned = x.Name() + ": " + reason
	return x.Name() != "two"
}

// busy is a front with figures.
type busy struct{ served atomic.Uint64 }

func (b *busy) Open() int { return 42 }

func (b *busy) Stats() l7.Stats {
	n := b.served.Load()
	return l7.Stats{Open: 42, Parked: 31, Accepted: n / 9, Handshakes: n / 9, HandshakeErrors: n / 900, Requests: l7.Statuses{2: n}, BytesIn: 180 * n, BytesOut: 5200 * n}
}

// TestServeForLooking serves a world to look at, where PENSTOCK_ADMIN_LOOK says:
// "127.0.0.1:9090 3000 trouble".
func TestServeForLooking(t *testing.T) {
	var addr, kind string
	var n int
	if _, err := fmt.Sscan(os.Getenv("PENSTOCK_ADMIN_LOOK"), &addr, &n, &kind); err != nil {
		t.Skip("for people")
	}
	w := newWorld(t, n)
	w.h.Title, w.h.Allow = "gateway", admin.Local
	front := new(busy)
	w.h.Servers["https"] = front
	w.h.Checks = []admin.Prober{&stub{}}
	w.h.Outliers = []admin.Returner{&stub{}}
	w.work(3)
	if kind == "trouble" {
		w.trouble()
	}
	go func() {
		for i := 0; ; i++ {
			time.Sleep(200 * time.Millisecond)
			if kind == "trouble" {
				w.limit.Take(netip.MustParseAddr("192.0.2.1"), 1)
			}
			w.work(1 + i/5%3)
			front.served.Add(uint64(20 + 4*(i/5%3)))
		}
	}()
	require.NoError(t, errors.Join(http.ListenAndServe(addr, w.h)))
}
