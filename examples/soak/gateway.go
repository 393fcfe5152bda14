// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/file"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/accesslog"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/ratelimit"
)

const (
	lameDuck  = time.Second
	drainTime = 20 * time.Second // of work in progress, when a gateway ends
	tryTime   = 5 * time.Second
	maxConns  = 12 // of a server, for each pool
	places    = 4  // of the gate
	limitRate = 20 // a second, for each key of the limit
	limitMost = 10 // its burst
)

// A config is what a gateway is told: it is started as "soak gateway JSON".
type config struct {
	Host    string // loopback address of its fronts
	Servers string // file with the endpoints
	Log     string // access log
	CA      string // signs the certificates of servers
	Cert    string // of the HTTPS front, and its key
	Key     string
}

// A gateway is the process that is tested.
type gateway struct {
	config

	restart   l4.Restart
	pools     []*balance.Pool
	upstreams []*l7.Upstream
	log       *accesslog.File
	web       *l7.Server
	lines     *l4.Server
	datagrams *l4.UDPProxy
	page      *admin.Handler
	exchanges atomic.Int64
}

// Figures are what a gateway says of itself, after it has collected its garbage.
type Figures struct {
	PID        int
	Goroutines int
	Heap       int64 // bytes of live objects
	Exchanges  int64
	Logged     accesslog.Stats
}

// wrong reports a broken promise to the parent, which reads the standard streams.
func (g *gateway) wrong(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "fault: "+format+"\n", args...)
}

// runGateway is main of a gateway. It serves until SIGTERM, or until a successor serves
// after SIGHUP, drains, and looks whether anything is left.
func runGateway(arg string) error {
	g := new(gateway)
	if err := json.Unmarshal([]byte(arg), &g.config); err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	before := runtime.NumGoroutine()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var background, fronts sync.WaitGroup
	handler := g.build()
	g.follow(ctx, &background)
	if err := g.listen(ctx, handler, &fronts); err != nil {
		return err
	}
	if err := g.restart.Ready(); err != nil {
		return err
	}
	for s := range signals {
		if s == syscall.SIGTERM {
			break
		}
		late, cancel := context.WithTimeout(ctx, time.Minute)
		err := g.restart.HandOver(late)
		if cancel(); err == nil {
			break
		}
		g.wrong("hand-over: %v", err)
	}
	late, cancel := context.WithTimeout(ctx, drainTime)
	var draining sync.WaitGroup
	for _, shutdown := range []func(context.Context) error{g.web.Shutdown, g.lines.Shutdown, g.datagrams.Shutdown} {
		draining.Go(func() {
			if err := shutdown(late); err != nil {
				fmt.Fprintln(os.Stderr, "cut at the end of draining:", err)
			}
		})
	}
	draining.Wait()
	cancel()
	stop() // ends the admin page too
	fronts.Wait()
	background.Wait()
	signal.Stop(signals)
	return g.empty(before)
}

// empty checks that nothing is left: no lease, no waiter, no goroutine.
func (g *gateway) empty(before int) error {
	for _, u := range g.upstreams {
		u.CloseIdle()
	}
	end := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(end) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		g.wrong("%d goroutines are left, %d at the start", n, before)
		fmt.Fprintf(os.Stderr, "%s\n", stacks())
	}
	for _, p := range g.pools {
		if st := p.Stats(); st.InFlight != 0 || st.Queued != 0 || st.Retries != 0 {
			g.wrong("pool %s ends with %d in flight, %d waiting, %d retries", p.Name, st.InFlight, st.Queued, st.Retries)
		}
	}
	if st, n := g.log.Stats(), g.exchanges.Load(); st.Written+st.Dropped != n {
		g.wrong("%d lines of the access log are written and %d dropped, of %d exchanges", st.Written, st.Dropped, n)
	}
	return nil
}

func stacks() []byte {
	b := make([]byte, 4<<20)
	return b[:runtime.Stack(b, true)]
}

// build makes the pools and the tree of handlers.
func (g *gateway) build() http.Handler {
	protocols := func(h1, h2, clear bool) *http.Protocols {
		p := new(http.Protocols)
		p.SetHTTP1(h1)
		p.SetHTTP2(h2)
		p.SetUnencryptedHTTP2(clear)
		return p
	}
	proxy := func(name string, u *l7.Upstream) *l7.Proxy {
		pool := g.pool(name)
		u.IdleTimeout = 2 * time.Second
		g.upstreams = append(g.upstreams, u)
		return &l7.Proxy{Pool: pool, Upstream: u, TryTimeout: tryTime, BodyTimeout: tryTime, StreamTimeout: 10 * time.Second, Retry: l7.Retry{
			Tries:    2 * servers,
			Classes:  []balance.Class{balance.ConnectFailed, balance.ConnectTimeout, balance.TLSFailed, balance.Timeout, balance.Reset, balance.Protocol},
			Statuses: []int{http.StatusServiceUnavailable},
		}}
	}
	web := proxy("web", &l7.Upstream{})
	secure := proxy("secure", &l7.Upstream{Protocols: protocols(true, true, false), MaxAge: 10 * time.Second, TLS: g.verify()})
	secure.Hedge = l7.Hedge{Delay: time.Second}
	calls := proxy("calls", &l7.Upstream{Protocols: protocols(false, false, true)})
	g.pool("lines")
	g.pool("datagrams")
	limiter := &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(limitRate), Burst: limitMost}}
	conc := &ratelimit.Concurrency{Max: places, MaxQueue: 1000, MaxWait: tryTime}
	router := l7.NewRouter(
		l7.Route{Name: "limited", Match: l7.PathPrefix("/limited"), Handler: &l7.Limit[string]{
			Limiter: limiter, Policy: "key",
			Key:  func(x *l7.Exchange) (string, bool) { return strings.Clone(x.Path), true },
			Next: &rateMeter{g: g, next: &l7.FixedReply{Body: "passed"}},
		}},
		l7.Route{Name: "gated", Match: l7.PathPrefix("/gated"), Handler: &l7.Gate{Places: conc, Next: &gateMeter{g: g, next: web}}},
		l7.Route{Name: "sticky", Match: l7.PathPrefix("/sticky"), Handler: &l7.Persist{Pool: web.Pool, Keys: [][]byte{[]byte("the same key for all gateways")}, Next: web}},
		l7.Route{Name: "secure", Match: l7.PathPrefix("/secure"), Handler: secure},
		l7.Route{Name: "calls", Match: l7.PathPrefix("/calls"), Handler: calls},
		l7.Route{Name: "web", Handler: web},
	)
	g.log = &accesslog.File{Path: g.Log, Flush: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	g.web = &l7.Server{Handler: &l7.RequestID{Reply: true, Next: router}, IdleTimeout: 2 * time.Second, BodyTimeout: tryTime, SendTimeout: 2 * tryTime,
		StreamTimeout: 10 * time.Second, LameDuck: lameDuck, OnDone: func(r *l7.Record) {
			g.exchanges.Add(1)
			g.log.Put(r.AppendCombined(g.log.Line()))
			if r.Status >= 500 && r.Err != nil {
				fmt.Fprintf(os.Stderr, "%s %s: %d after %v, %d tries, the last on %q, %v: %v\n", r.Method, r.Path, r.Status, r.Total, r.Tries, r.Server, r.Termination, r.Err)
			}
		}}
	g.lines = &l4.Server{Handler: &l4.Proxy{Pool: g.pools[3], IdleTimeout: 10 * time.Second, HalfClosedTimeout: 10 * time.Second, Tries: 2 * servers, CutOnDown: true}, LameDuck: lameDuck}
	g.datagrams = &l4.UDPProxy{Pool: g.pools[4], IdleTimeout: 2 * time.Second}
	g.page = &admin.Handler{Pools: g.pools, Routers: map[string]*l7.Router{"web": router}, Upstreams: g.upstreams, Allow: admin.Local,
		Limits:  map[string]admin.Limit{"key": limiter, "places": conc},
		Servers: map[string]admin.Server{"web": g.web, "lines": g.lines}, Logger: slog.New(slog.DiscardHandler)}
	return g.web.Handler
}

// verify returns the configuration for servers.
func (g *gateway) verify() func(*balance.Server) *tls.Config {
	pem, err := os.ReadFile(g.CA)
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: site}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		g.wrong("%s: no certificate: %v", g.CA, err)
	}
	return func(*balance.Server) *tls.Config { return c }
}

func (g *gateway) pool(name string) *balance.Pool {
	p := &balance.Pool{Name: name, Queue: balance.Queue{Timeout: 2 * tryTime}, Panic: 0.1, Budget: balance.Budget{Share: 1, Min: 100}, WhenFull: balance.Wait}
	g.pools = append(g.pools, p)
	return p
}

// ports are those of a server, by pool.
var ports = map[string]string{"web": "8001", "calls": "8001", "secure": "8002", "lines": "8003", "datagrams": "8004"}

// follow runs what works in the background: discovery by file, checks, the log, and a
// look at the limits.
func (g *gateway) follow(ctx context.Context, background *sync.WaitGroup) {
	var first []balance.Endpoint
	for first == nil { // it may be broken just now
		text, err := os.ReadFile(g.Servers)
		if first, _ = file.Parse(text); err != nil {
			g.wrong("%v", err)
		}
	}
	for _, p := range g.pools {
		edit := func(e *balance.Endpoint) {
			e.Name, e.Addr, e.MaxConns = e.Addr, net.JoinHostPort(e.Addr, ports[p.Name]), maxConns
		}
		list := slices.Clone(first)
		for i := range list {
			edit(&list[i])
		}
		if err := p.Set(list...); err != nil {
			g.wrong("Set: %v", err)
		}
		background.Go(func() {
			_ = p.Follow(ctx, &file.Source{Path: g.Servers, Interval: 100 * time.Millisecond, Edit: edit})
		})
	}
	checker := &health.Checker{Pools: g.pools, Probe: health.Func(func(ctx context.Context, e balance.Endpoint) error {
		e.Addr = net.JoinHostPort(e.Name, ports["web"]) // for all its ports
		return health.HTTP{Path: "/healthy"}.Probe(ctx, e)
	}), Key: func(e balance.Endpoint) string { return e.Name },
		Interval: 500 * time.Millisecond, Timeout: tryTime, Rise: 1, CutDown: true, Logger: slog.New(slog.DiscardHandler)}
	g.page.Checks = []admin.Prober{checker}
	background.Go(func() { _ = checker.Run(ctx) })
	background.Go(func() { _ = g.log.Run(ctx) })
	background.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			for _, p := range g.pools {
				for s := range p.All() {
					if n := s.InFlight(); n > maxConns {
						g.wrong("server %s of pool %s has %d in flight, above its limit of %d", s.Name(), p.Name, n, maxConns)
					}
				}
			}
		}
	})
}

// listen opens the fronts, or takes them over, and serves.
func (g *gateway) listen(ctx context.Context, handler http.Handler, fronts *sync.WaitGroup) error {
	g.web.Handler = handler
	var lns []net.Listener
	for _, port := range []string{"80", "443", "9000", "9090"} {
		ln, err := g.restart.Listen(ctx, nil, "tcp", net.JoinHostPort(g.Host, port))
		if err != nil {
			return err
		}
		lns = append(lns, ln)
	}
	pc, err := g.restart.ListenPacket(ctx, "udp", net.JoinHostPort(g.Host, "9001"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", g.page)
	mux.HandleFunc("/figures", g.figures)
	mux.HandleFunc("/stacks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(stacks()) })
	mux.HandleFunc("POST /reopen", func(http.ResponseWriter, *http.Request) { g.log.Reopen() })
	operators := &http.Server{Handler: mux, ReadHeaderTimeout: tryTime}
	context.AfterFunc(ctx, func() { _ = operators.Close() })
	serve := func(what string, f func() error) {
		fronts.Go(func() {
			if err := f(); !errors.Is(err, l4.ErrServerClosed) && !errors.Is(err, http.ErrServerClosed) {
				g.wrong("front %s: %v", what, err)
			}
		})
	}
	serve("http", func() error { return g.web.Serve(lns[0]) })
	serve("https", func() error { return g.web.ServeTLS(lns[1], g.Cert, g.Key) })
	serve("lines", func() error { return g.lines.Serve(lns[2]) })
	serve("datagrams", func() error { return g.datagrams.Serve(pc) })
	serve("admin", func() error { return operators.Serve(lns[3]) })
	return nil
}

func (g *gateway) figures(w http.ResponseWriter, _ *http.Request) {
	debug.FreeOSMemory() // collects garbage
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	_ = json.NewEncoder(w).Encode(Figures{os.Getpid(), runtime.NumGoroutine(), int64(s[0].Value.Uint64()), g.exchanges.Load(), g.log.Stats()})
}

// A gateMeter is inside a Gate, and sees whether that admits more than its places.
type gateMeter struct {
	g    *gateway
	n    atomic.Int64
	next http.Handler
}

func (m *gateMeter) ServeExchange(x *l7.Exchange) {
	if n := m.n.Add(1); n > places {
		m.g.wrong("the gate admits %d at once, and has %d places", n, places)
	}
	defer m.n.Add(-1)
	l7.Serve(m.next, x)
}

func (m *gateMeter) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(m, w, r) }

// A rateMeter is inside a Limit, and sees whether a key gets more than its rate.
type rateMeter struct {
	g    *gateway
	mu   sync.Mutex
	keys map[string]*passed
	next http.Handler
}

type passed struct {
	since time.Time // the start of the first exchange, not after the limiter was asked
	n     int
}

func (m *rateMeter) ServeExchange(x *l7.Exchange) {
	m.mu.Lock()
	if m.keys == nil {
		m.keys = make(map[string]*passed)
	}
	k := m.keys[x.Path]
	if k == nil {
		k = &passed{since: x.Record.Start}
		m.keys[strings.Clone(x.Path)] = k
	} else if x.Record.Start.Before(k.since) {
		k.since = x.Record.Start
	}
	k.n++
	n, most := k.n, limitMost+time.Since(k.since).Seconds()*limitRate
	m.mu.Unlock()
	if float64(n) > most+1 {
		m.g.wrong("key %s was admitted %d times within %v, its limit is %s", x.Path, n, time.Since(k.since), strconv.FormatFloat(most, 'f', 1, 64))
	}
	l7.Serve(m.next, x)
}

func (m *rateMeter) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(m, w, r) }
