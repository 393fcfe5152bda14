// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"crypto/tls"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A bomb is host code that panics while it is armed.
type bomb struct {
	armed atomic.Bool
	net   *l4test.Network
	pool  *balance.Pool
	proxy *l7.Proxy // to the pool, whose server echoes
}

func (b *bomb) tick() {
	if b.armed.Load() {
		panic("boom")
	}
}

// before returns a handler that runs b and then the proxy.
func (b *bomb) before() l7.HandlerFunc {
	return func(x *l7.Exchange) { b.tick(); l7.Serve(b.proxy, x) }
}

type (
	bombPlaces  struct{ b *bomb }
	bombLimiter struct{ b *bomb }
	bombStore   struct{ b *bomb }
	bombPicker  struct {
		b *bomb
		s *balance.Server
	}
	bombReader struct {
		b *bomb
		io.Reader
	}
)

func (p bombPlaces) TryAcquire() bool              { p.b.tick(); return true }
func (p bombPlaces) Acquire(context.Context) error { return nil }
func (p bombPlaces) Release(time.Duration)         { p.b.tick() }

func (l bombLimiter) Take(string, int) ratelimit.Decision {
	l.b.tick()
	return ratelimit.Decision{OK: true}
}
func (l bombLimiter) Refund(string, ratelimit.Decision) { l.b.tick() }

func (s bombStore) Lookup(string) (string, bool) { s.b.tick(); return "", false }
func (s bombStore) Remember(string, string)      { s.b.tick() }

func (p bombPicker) Pick(uint64, balance.Filter) *balance.Server { p.b.tick(); return p.s }

func (r bombReader) Read(p []byte) (int, error) { r.b.tick(); return r.Reader.Read(p) }

// panics are all the places where a host gives us code that serves a request,
// by the field or the interface it is given in. Want is the status that the
// client gets; 0 is a reply that is cut, as its head was sent.
var panics = []struct {
	name string
	want int
	site func(b *bomb) http.Handler
}{
	{"Handler", 500, func(b *bomb) http.Handler { return b.before() }},
	{"http.Handler", 500, func(b *bomb) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			b.tick()
			w.Header().Del("Content-Encoding")
		})
	}},
	{"http.Handler that has begun", 0, func(b *bomb) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x"); b.tick() })
	}},
	{"http.Handler as a member", 500, func(b *bomb) http.Handler {
		h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { b.tick() })
		if err := b.pool.Set(balance.Endpoint{Name: "here", Addr: "here:1", Value: h}); err != nil {
			panic(err)
		}
		return b.proxy
	}},
	{"Exchange.ErrorPage", 502, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.ErrorPage = func(*l7.Exchange, int) (*l7.Fields, string) { b.tick(); return nil, "" }
			if b.armed.Load() {
				x.Error(502, l4.Termination{Cause: l4.Internal})
				return
			}
			x.Respond(200, nil, "")
		})
	}},
	{"Exchange.ErrorPage after a panic", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.ErrorPage = func(*l7.Exchange, int) (*l7.Fields, string) { b.tick(); return nil, "" }
			b.tick()
			x.Respond(200, nil, "")
		})
	}},
	{"Wrap.With", 500, func(b *bomb) http.Handler {
		return &l7.Wrap{Next: b.proxy, With: func(next http.Handler) http.Handler { b.tick(); return next }}
	}},
	{"Wrap.With's handler", 500, func(b *bomb) http.Handler {
		return &l7.Wrap{Next: b.proxy, With: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.tick(); next.ServeHTTP(w, r) })
		}}
	}},
	{"Handler inside Wrap.With's", 500, func(b *bomb) http.Handler {
		return &l7.Wrap{Next: b.before(), With: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
		}}
	}},
	{"ErrorPages.Make", 403, func(b *bomb) http.Handler {
		return &l7.ErrorPages{
			Make: func(*l7.Exchange, int, error) *l7.FixedReply { b.tick(); return nil },
			Next: l7.HandlerFunc(func(x *l7.Exchange) {
				if b.armed.Load() {
					x.Error(403, l4.Termination{Cause: l4.Internal})
					return
				}
				x.Respond(200, nil, "")
			}),
		}
	}},
	{"ReplyEditor", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(*l7.Exchange, *l7.Reply) { b.tick() }))
			l7.Serve(b.proxy, x)
		})
	}},
	{"ReplyEditor of a local reply", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(*l7.Exchange, *l7.Reply) { b.tick() }))
			x.Respond(200, nil, "x")
		})
	}},
	{"ReplyEditor of a foreign reply", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(*l7.Exchange, *l7.Reply) { b.tick() }))
			l7.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") }), x)
		})
	}},
	{"Reply.FilterBody", 0, func(b *bomb) http.Handler { return filterReply(b, b.proxy) }},
	{"Reply.FilterBody of a local reply", 0, func(b *bomb) http.Handler {
		return filterReply(b, l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "x") }))
	}},
	{"Reply.FilterBody of a foreign reply", 0, func(b *bomb) http.Handler {
		return filterReply(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") }))
	}},
	{"Exchange.FilterBody", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.FilterBody(func(r io.Reader) io.Reader { return bombReader{b, r} })
			l7.Serve(b.proxy, x)
		})
	}},
	{"Exchange.FilterBody to HTTP/2", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.Protocols = protocols("h2c")
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.FilterBody(func(r io.Reader) io.Reader { return bombReader{b, r} })
			l7.Serve(b.proxy, x)
		})
	}},
	{"Exchange.FilterBody itself", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.FilterBody(func(r io.Reader) io.Reader { b.tick(); return r })
			l7.Serve(b.proxy, x)
		})
	}},
	{"ProxyStatus.Trust", 500, func(b *bomb) http.Handler {
		return &l7.ProxyStatus{Name: "edge", Trust: b.matcher(), Next: b.proxy}
	}},
	{"BasicAuth.Verify", 500, func(b *bomb) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.Header.Set("Authorization", "Basic YW5uOm9uZQ==")
			l7.Serve(&l7.BasicAuth{Verify: func(_, _ string) bool { b.tick(); return true }, Next: b.proxy}, x)
		})
	}},
	{"ForwardAuth.Service", 503, func(b *bomb) http.Handler {
		return &l7.ForwardAuth{Service: l7.HandlerFunc(func(x *l7.Exchange) { b.tick(); x.Respond(200, nil, "") }), Next: b.proxy}
	}},
	{"ForwardAuth.Key", 500, func(b *bomb) http.Handler {
		ok := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") })
		return &l7.ForwardAuth{Service: ok, KeepFor: time.Minute, Key: b.key, Next: b.proxy}
	}},
	{"Fault.Match", 500, func(b *bomb) http.Handler { return &l7.Fault{Match: l7.Not(b.matcher()), Status: 503, Next: b.proxy} }},
	{"Fault.Active", 500, func(b *bomb) http.Handler {
		return &l7.Fault{Active: func() bool { b.tick(); return false }, Status: 503, Next: b.proxy}
	}},
	{"Reply.FilterBody of a reply held back", 0, func(b *bomb) http.Handler { return filterReply(b, &l7.BufferReply{Next: b.proxy}) }},
	{"Access.Allow", 500, func(b *bomb) http.Handler { return &l7.Access{Allow: b.matcher(), Next: b.proxy} }},
	{"Access.Deny", 500, func(b *bomb) http.Handler { return &l7.Access{Deny: l7.Not(b.matcher()), Next: b.proxy} }},
	{"Monitor.Fail", 500, func(b *bomb) http.Handler {
		return &l7.Monitor{Path: "/x", Fail: func() bool { b.tick(); return false }, Next: b.proxy}
	}},
	{"EditHeader.Request", 500, func(b *bomb) http.Handler { return &l7.EditHeader{Request: b.edits(), Next: b.proxy} }},
	{"EditHeader.Reply", 500, func(b *bomb) http.Handler { return &l7.EditHeader{Reply: b.edits(), Next: b.proxy} }},
	{"SetField.From", 500, func(b *bomb) http.Handler {
		return &l7.EditHeader{Request: []l7.FieldEdit{l7.SetField{Name: "X-A", From: b.text}}, Next: b.proxy}
	}},
	{"AddField.From", 500, func(b *bomb) http.Handler {
		return &l7.EditHeader{Request: []l7.FieldEdit{l7.AddField{Name: "X-A", From: b.text}}, Next: b.proxy}
	}},
	{"SetForwarded.For", 500, func(b *bomb) http.Handler {
		return &l7.EditHeader{Request: []l7.FieldEdit{l7.SetForwarded{For: b.text}}, Next: b.proxy}
	}},
	{"SetForwarded.By", 500, func(b *bomb) http.Handler {
		return &l7.EditHeader{Request: []l7.FieldEdit{l7.SetForwarded{By: b.text}}, Next: b.proxy}
	}},
	{"Gate.Places", 500, func(b *bomb) http.Handler { return &l7.Gate{Places: bombPlaces{b}, Next: b.proxy} }},
	{"Limit.Limiter", 500, func(b *bomb) http.Handler {
		return &l7.Limit[string]{Limiter: bombLimiter{b}, Key: func(*l7.Exchange) (string, bool) { return "k", true }, Next: b.proxy}
	}},
	{"Limit.Key", 500, func(b *bomb) http.Handler {
		return &l7.Limit[string]{Limiter: &ratelimit.Keyed[string]{Law: ratelimit.Unlimited{}}, Key: b.key, Next: b.proxy}
	}},
	{"Limit.Cost", 500, func(b *bomb) http.Handler {
		return &l7.Limit[netip.Addr]{Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.Unlimited{}}, Cost: func(*l7.Exchange) int { b.tick(); return 1 }, Next: b.proxy}
	}},
	{"Limit.OnOver", 500, func(b *bomb) http.Handler {
		return &l7.Limit[netip.Addr]{Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.InFlight{Max: -1}, CountOnly: true}, OnOver: func(*l7.Exchange, netip.Addr, ratelimit.Decision) { b.tick() }, Next: b.proxy}
	}},
	{"Header.Test", 500, func(b *bomb) http.Handler { return b.route(l7.Header{Name: "Accept", Test: b.test}) }},
	{"Cookie.Test", 500, func(b *bomb) http.Handler { return b.route(l7.Cookie{Name: "c", Test: b.test}) }},
	{"Query.Test", 500, func(b *bomb) http.Handler { return b.route(l7.Query{Name: "q", Test: b.test}) }},
	{"Route.Match", 500, func(b *bomb) http.Handler { return b.route(b.matcher()) }},
	{"Choose.By", 500, func(b *bomb) http.Handler {
		return &l7.Choose{By: func(*l7.Exchange) http.Handler { b.tick(); return b.proxy }}
	}},
	{"Split.Key", 500, func(b *bomb) http.Handler {
		s := l7.NewSplit(l7.Arm{Name: "a", Weight: 1, Handler: b.proxy})
		s.Key = b.key
		return s
	}},
	{"Redirect.To", 500, func(b *bomb) http.Handler {
		return &l7.Redirect{To: func(*l7.Exchange) string { b.tick(); return "" }, Next: b.proxy}
	}},
	{"RequestID.New", 500, func(b *bomb) http.Handler {
		return &l7.RequestID{New: func(*l7.Exchange) string { b.tick(); return "1" }, Next: b.proxy}
	}},
	{"Rewrite.Path", 500, func(b *bomb) http.Handler {
		return &l7.Rewrite{Path: func(*l7.Exchange) string { b.tick(); return "/" }, Next: b.proxy}
	}},
	{"Rewrite.Query", 500, func(b *bomb) http.Handler {
		return &l7.Rewrite{Query: func(*l7.Exchange) string { b.tick(); return "" }, Next: b.proxy}
	}},
	{"Rewrite.HostOf", 500, func(b *bomb) http.Handler {
		return &l7.Rewrite{HostOf: func(*l7.Exchange) string { b.tick(); return "a" }, Next: b.proxy}
	}},
	{"HashBy.Key", 500, func(b *bomb) http.Handler { return &l7.HashBy[string]{Key: b.key, Next: b.proxy} }},
	{"Stick.Key", 500, func(b *bomb) http.Handler { return &l7.Stick{Key: b.key, Next: b.proxy} }},
	{"Stick.Table", 500, func(b *bomb) http.Handler {
		return &l7.Stick{Key: func(*l7.Exchange) (string, bool) { return "k", true }, Table: bombStore{b}, Next: b.proxy}
	}},
	{"Retry.Repeatable", 500, func(b *bomb) http.Handler {
		b.proxy.Retry = l7.Retry{Repeatable: func(*l7.Exchange) bool { b.tick(); return false }}
		return b.proxy
	}},
	{"Upstream.Dial", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			b.tick()
			return b.net.DialContext(ctx, network, addr)
		}
		return b.proxy
	}},
	{"Upstream.Dial of HTTP/2", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.Protocols = protocols("h2c")
		b.proxy.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			b.tick()
			return b.net.DialContext(ctx, network, addr)
		}
		return b.proxy
	}},
	{"Upstream.TLS", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.TLS = func(*balance.Server) *tls.Config { b.tick(); return nil }
		return b.proxy
	}},
	{"Upstream.ProtocolsOf", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.ProtocolsOf = func(*balance.Server) *http.Protocols { b.tick(); return nil }
		return b.proxy
	}},
	{"Upstream.TLSName", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.TLSName = func(*l7.Exchange, *balance.Server) string { b.tick(); return "" }
		return b.proxy
	}},
	{"Upstream.ProxyHeader", 500, func(b *bomb) http.Handler {
		b.proxy.Upstream.ProxyHeader = func(*l7.Exchange, *balance.Server) *l4.ProxyHeader { b.tick(); return nil }
		return b.proxy
	}},
	{"Picker", 500, func(b *bomb) http.Handler {
		b.proxy.Pool = &balance.Pool{Policy: balance.PolicyFunc(func(v balance.View) balance.Picker { return bombPicker{b, v.Servers[0]} })}
		if err := b.proxy.Pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
			panic(err)
		}
		b.pool = b.proxy.Pool
		return b.proxy
	}},
	{"Pool.OnOutcome", 200, func(b *bomb) http.Handler {
		b.proxy.Pool = &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){func(*balance.Server, balance.Outcome) { b.tick() }}}
		if err := b.proxy.Pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
			panic(err)
		}
		b.pool = b.proxy.Pool
		return b.proxy
	}},
	{"Mirror.To", 200, func(b *bomb) http.Handler {
		b.proxy.Mirror = &l7.Mirror{To: l7.HandlerFunc(func(*l7.Exchange) { b.tick() })}
		return b.proxy
	}},
	{"Server.OnDone", 200, func(b *bomb) http.Handler { return b.proxy }}, // by the test
}

func filterReply(b *bomb, next http.Handler) http.Handler {
	return l7.HandlerFunc(func(x *l7.Exchange) {
		x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) {
			r.FilterBody(func(r io.Reader) io.Reader { return bombReader{b, r} })
		}))
		l7.Serve(next, x)
	})
}

func (b *bomb) matcher() l7.Matcher {
	return l7.MatchFunc(func(*l7.Exchange) bool { b.tick(); return true })
}

func (b *bomb) edits() []l7.FieldEdit {
	return []l7.FieldEdit{l7.FieldEditFunc(func(*l7.Exchange, *l7.Fields) { b.tick() })}
}

func (b *bomb) text(*l7.Exchange) string        { b.tick(); return "x" }
func (b *bomb) key(*l7.Exchange) (string, bool) { b.tick(); return "k", true }
func (b *bomb) test(string) bool                { b.tick(); return true }

func (b *bomb) route(m l7.Matcher) http.Handler {
	return l7.NewRouter(l7.Route{Match: m, Handler: b.proxy}, l7.Route{Handler: b.proxy})
}

// A panicLog counts the panics that were logged with their stack.
type panicLog struct {
	slog.Handler
	mu sync.Mutex
	n  int
}

func newPanicLog() *panicLog { return &panicLog{Handler: slog.NewTextHandler(io.Discard, nil)} }

func (l *panicLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stack" && strings.Contains(a.Value.String(), "_test.go") {
			l.mu.Lock()
			l.n++
			l.mu.Unlock()
		}
		return true
	})
	return nil
}

func (l *panicLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// Whatever a host gives us may panic: that request ends, with a stack in the
// log and a record, and neither the next request nor a lease knows of it.
func TestHostCodePanics(t *testing.T) {
	for _, c := range carriers {
		if c.foreign {
			continue
		}
		for _, p := range panics {
			t.Run(c.name+"/"+p.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testPanic(t, c, p.name, p.want, p.site) })
			})
		}
	}
}

func testPanic(t *testing.T, c carrier, name string, want int, site func(*bomb) http.Handler) {
	b := &bomb{net: l4test.NewNetwork()}
	b.proxy = newProxy(b.net, "10.0.0.1:80")
	b.pool = b.proxy.Pool
	addr := "10.0.0.1:80"
	ln, err := b.net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: protocols("1", "h2c"), ErrorLog: quietLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})}
	go server.Serve(ln)
	defer server.Close()
	log := newPanicLog()
	was := slog.Default()
	slog.SetDefault(slog.New(log))
	defer slog.SetDefault(was)
	var mu sync.Mutex
	var records []l7.Record
	srv := &l7.Server{Handler: site(b), Logger: slog.New(log), OnDone: func(r *l7.Record) {
		mu.Lock()
		records = append(records, *r)
		mu.Unlock()
		if name == "Server.OnDone" {
			b.tick()
		}
	}}
	if c.host {
		switch {
		case name == "Server.OnDone":
			return // it has no server of ours
		case want == 500 && !strings.HasPrefix(name, "Exchange.FilterBody to") && name != "Exchange.FilterBody":
			want = 0 // net/http's business, and that of the host's handlers around ours
		}
	}
	c.runServer(t, b.net, srv, func(client *http.Client) {
		ask := func() (int, string) {
			// A body that is not at hand with the head.
			pr, pw := io.Pipe()
			go func() { time.Sleep(100 * time.Millisecond); io.WriteString(pw, "body"); pw.Close() }()
			req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://a.test/x?q=1", pr)
			req.Header.Set("Accept", "text/x")
			req.Header.Set("Cookie", "c=1")
			res, err := client.Do(req)
			if err != nil {
				return 0, ""
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				return 0, ""
			}
			return res.StatusCode, string(body) + res.Header.Get("Content-Encoding")
		}
		b.armed.Store(true)
		status, body := ask()
		if status != want || status >= 500 && body != http.StatusText(status) && !strings.HasPrefix(body, "50") {
			t.Errorf("status %d, %q; want %d", status, body, want)
		}
		synctest.Wait()
		b.armed.Store(false)
		if n := log.count(); n < 1 && !(c.host && want == 0) {
			t.Error("no stack in the log")
		}
		if status, _ := ask(); status != 200 {
			t.Errorf("the next request: status %d", status)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if !c.host && (len(records) != 2 || want != 200 && records[0].Termination.Cause != l4.Internal) {
			t.Errorf("records %+v", records)
		}
	})
	for s := range b.pool.All() {
		if n := s.InFlight(); n != 0 {
			t.Errorf("%d leases are left", n)
		}
	}
	b.proxy.Upstream.CloseIdle()
	if b.proxy.Mirror != nil {
		b.proxy.Mirror.Wait()
	}
}

// Every func and interface that a struct of this package takes has its case.
func TestPanicsCoverEveryHook(t *testing.T) {
	elsewhere := map[string]string{
		"CircuitBreaker.Failed":   "called once the reply has gone: TestCircuitBreakerWhat",
		"ClientCert.Test":         "a Matcher as the others, which needs a client certificate",
		"Misdirected.Same":        "called as a Matcher is",
		"Server.BaseContext":      "called by Serve, in the host's goroutine",
		"Server.ConnContext":      "TestConnContextPanics",
		"Transport.Balance":       "TestTransportPanics",
		"Transport.OnDone":        "TestTransportPanics",
		"Server.TLSConfig":        "TestTLSCallbackPanics",
		"Server.OnAbuse":          "TestAbuseIsTold",
		"ForwardClientCert.Trust": "called as a Matcher is",
		"Server.OnHandshakeError": "TestVerifyClientRefusesOpenConnections",
	}
	for _, p := range panics {
		elsewhere[p.name] = "panics"
	}
	interfaces := map[string]bool{"Matcher": true, "KeyLimiter": true, "Places": true, "StickStore": true, "FieldEdit": true, "DialFunc": true}
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range sources {
		if !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			require.NoError(t, err)
			files = append(files, file)
		}
	}
	var takes func(e ast.Expr) bool
	takes = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.FuncType:
			return true
		case *ast.Ident:
			return interfaces[e.Name]
		case *ast.SelectorExpr:
			return interfaces[e.Sel.Name]
		case *ast.IndexExpr:
			return takes(e.X)
		case *ast.ArrayType:
			return takes(e.Elt)
		}
		return false
	}
	n := 0
	find := func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok || !spec.Name.IsExported() {
			return true
		}
		st, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range st.Fields.List {
			for _, name := range f.Names {
				if key := spec.Name.Name + "." + name.Name; name.IsExported() && takes(f.Type) {
					if n++; elsewhere[key] == "" {
						t.Errorf("%s may panic, and no test says what happens then", key)
					}
				}
			}
		}
		return true
	}
	for _, file := range files {
		ast.Inspect(file, find)
	}
	if n < 30 {
		t.Errorf("only %d hooks were found", n)
	}
}
