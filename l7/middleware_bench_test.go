// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/ratelimit"
)

// absentClient is a client that is not there, for what middleware costs by itself.
type absentClient struct{ downstream }

func (absentClient) context() context.Context { return context.Background() }
func (absentClient) observed() bool           { return true }
func (absentClient) logger() *slog.Logger     { return slog.Default() }

// BenchmarkMiddleware is the cost of each piece: the exchange goes in, comes
// out at Next, and the edits of the reply are run. "none" is what the
// benchmark itself costs.
func BenchmarkMiddleware(b *testing.B) {
	heap := make([]byte, 64<<20) // a gateway's, so that what allocates pays no garbage collection every 4 MB
	defer runtime.KeepAlive(heap)
	for _, m := range measured(b) {
		b.Run(m.name, func(b *testing.B) {
			again := m.exchange()
			b.ReportAllocs()
			for b.Loop() {
				m.h.ServeExchange(again())
			}
		})
	}
}

// At most one allocation each, but for these.
func TestMiddlewareAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	more := map[string]float64{"RewriteGroups": 2} // the match is package regexp's
	for _, m := range measured(t) {
		again := m.exchange()
		if n := testing.AllocsPerRun(200, func() { m.h.ServeExchange(again()) }); n > max(1, more[m.name]) {
			t.Errorf("%s allocates %v times", m.name, n)
		}
	}
}

// BenchmarkRegexp is the least that a rewrite by an expression costs: the
// package's own search for it.
func BenchmarkRegexp(b *testing.B) {
	for _, expr := range []string{`^/api/`, `^/api/v([0-9])/`} {
		b.Run(expr, func(b *testing.B) {
			e := regexp.MustCompile(expr)
			b.ReportAllocs()
			for b.Loop() {
				e.FindStringSubmatchIndex("/api/v1/users")
			}
		})
	}
}

type measure struct {
	name   string
	h      Handler
	cookie string
}

// exchange returns a func that makes the same exchange, each time.
func (m measure) exchange() func() *Exchange {
	x := &Exchange{
		Method: http.MethodGet, Scheme: "http", Host: "example.com",
		Client: netip.MustParseAddr("10.1.2.3"), down: absentClient{},
		Header: MakeFields("User-Agent", "x", "Accept", "*/*", "Cookie", m.cookie, "X-A", "key", "Authorization", "Basic YW5uOm9uZQ=="),
	}
	x.Record.Start = time.Now()
	clean := x.Header.Clone()
	return func() *Exchange {
		x.Path, x.Balance = "/api/v1/users", balance.Request{}
		x.Header.list = append(x.Header.list[:0], clean.list...)
		x.values, x.Record.Decision = x.values[:0], ""
		return x
	}
}

// openBreaker returns a breaker that refuses.
func openBreaker() *ratelimit.Breaker {
	b := &ratelimit.Breaker{Volume: 1, Open: time.Minute}
	permit, _, _ := b.Allow()
	permit.Fail()
	return b
}

func measured(t testing.TB) []measure {
	pool := &balance.Pool{Name: "p"}
	if err := pool.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "b", Addr: "b:1"}); err != nil {
		t.Fatal(err)
	}
	reply := Reply{Status: 200, Server: pool.Server("a"), Header: MakeFields("Content-Type", "text/plain", "X-Internal", "1", "Server", "s")}
	leaf := HandlerFunc(func(x *Exchange) {
		x.Record.Tries = 1
		x.edit(&reply)
		x.replied = false
	})
	persist := &Persist{Pool: pool, Keys: [][]byte{testKey}, Next: leaf}
	persist.init()
	cookie := "SERVER=" + persist.seal.seal("a", 1_800_000_000, 1_800_000_000)
	stick := &Stick{Key: ByHeader("X-A"), Next: leaf}
	stick.table().Remember("key", "a")
	split := NewSplit(Arm{"a", 1, leaf}, Arm{"b", 2, leaf})
	split.Key = ByHeader("X-A")

	list := []measure{
		{name: "none", h: leaf},
		{name: "Limit", h: &Limit[netip.Addr]{Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.Rate{Count: 1 << 30, Per: time.Second}}}, Next: leaf}},
		{name: "Gate", h: &Gate{Places: &ratelimit.Concurrency{Max: 10}, Next: leaf}},
		{name: "GateAdaptive", h: &Gate{Places: &ratelimit.Adaptive{}, Next: leaf}},
		{name: "GateShedder", h: &Gate{Places: &ratelimit.Shedder{Load: func() (float64, error) { return 0, nil }}, Next: leaf}},
		{name: "CircuitBreaker", h: &CircuitBreaker{Breaker: new(ratelimit.Breaker), Next: leaf}},
		{name: "CircuitBreakerOpen", h: &CircuitBreaker{Breaker: openBreaker(), Refuse: leaf, Next: leaf}},
		{name: "EditHeader", h: &EditHeader{
			Request: []FieldEdit{SetField{Name: "X-Env", Value: "prod"}},
			Reply:   []FieldEdit{DelField{Name: "Server"}}, Next: leaf}},
		{name: "Rewrite", h: &Rewrite{StripPrefix: "/api", Next: leaf}},
		{name: "RewriteRegexp", h: &Rewrite{Regexp: regexp.MustCompile(`^/api/`), With: "/", Next: leaf}},
		{name: "RewriteGroups", h: &Rewrite{Regexp: regexp.MustCompile(`^/api/v([0-9])/`), With: "/$1/", Next: leaf}},
		{name: "Access", h: &Access{Allow: ClientIn(prefixes("10.0.0.0/8")), Next: leaf}},
		{name: "BasicAuth", h: &BasicAuth{Verify: func(_, _ string) bool { return true }, Forward: true, Next: leaf}},
		{name: "ForwardAuthKept", h: &ForwardAuth{
			Service:   HandlerFunc(func(x *Exchange) { f := MakeFields("X-User", "ann"); x.Respond(200, &f, "") }),
			ToRequest: []string{"X-User"}, UserField: "X-User", KeepFor: time.Hour, Key: ByHost, Fields: []string{"Authorization"}, Next: leaf}},
		{name: "Fault", h: &Fault{Active: func() bool { return true }, Match: Header{Name: "X-Test"}, Status: 503, Next: leaf}},
		{name: "FaultOff", h: &Fault{Active: new(atomic.Bool).Load, Status: 503, Next: leaf}},
		{name: "LimitBody", h: &LimitBody{MaxBytes: 1 << 20, MinRate: 100, Next: leaf}},
		{name: "LoadReports", h: &LoadReports{Next: leaf}},
		{name: "BufferReply", h: &BufferReply{Next: leaf}},
		{name: "RequestID", h: &RequestID{Reply: true, Next: leaf}},
		{name: "Normalize", h: &Normalize{DecodeUnreserved: true, MergeSlashes: true, DotSegments: true, Strict: true, Next: leaf}},
		{name: "Monitor", h: &Monitor{Path: "/alive", Next: leaf}},
		{name: "Persist", h: persist},
		{name: "Stick", h: stick},
		{name: "HashBy", h: &HashBy[netip.Addr]{Key: ByClient, Next: leaf}},
		{name: "Split", h: split},
		{name: "Fallback", h: Fallback{{pool, leaf}}},
		{name: "Router", h: NewRouter(Route{Match: All{Host("example.com"), PathPrefix("/api")}, Handler: leaf})},
	}
	for i := range list {
		list[i].cookie = cookie
	}
	return list
}
