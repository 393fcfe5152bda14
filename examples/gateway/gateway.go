// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A Gateway is two fronts before four servers:
//
//	HTTP --> limit --> routes --+--> web:  one, two
//	                            +--> beta: three
//	TCP  --------------------------> lines: four
type Gateway struct {
	HTTP, TCP string        // addresses to listen on
	Admin     string        // address of the page for operators; "" means none
	Broken    time.Duration // how long a server fails that is told to
	Out       io.Writer     // gets what to try next, once everything listens
	Logger    *slog.Logger

	// Listen and Dial are the network; nil means this machine's. A test gives another one.
	Listen func(network, addr string) (net.Listener, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)

	servers sync.WaitGroup // those behind the gateway
}

// Run serves until ctx is done, drains for ten seconds at most, and returns nil.
func (g *Gateway) Run(ctx context.Context) error {
	if g.Listen == nil {
		g.Listen = net.Listen
	}
	// The servers outlive the gateway before them, so that it can drain.
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer g.servers.Wait()
	defer stop()
	web, err := g.startWeb(behind)
	if err != nil {
		return err
	}
	lines, err := g.startLines(behind)
	if err != nil {
		return err
	}

	httpLn, err := g.listen("-http", g.HTTP)
	if err != nil {
		return err
	}
	defer httpLn.Close()
	tcpLn, err := g.listen("-tcp", g.TCP)
	if err != nil {
		return err
	}
	defer tcpLn.Close()

	// The rest is what any program with penstock does: checkers and servers run until the
	// context ends, then the servers shut down.
	connections := &l7.Upstream{Dial: g.Dial} // to the servers, shared by all proxies
	perClient := &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(2), Burst: 3}}
	routes := g.routes(web, connections, perClient)
	requests := &l7.Server{Handler: routes, OnDone: l7.LogTo(g.Logger), Logger: g.Logger}
	streams := &l4.Server{Handler: &l4.Proxy{Pool: lines, Dial: g.Dial}, OnDone: g.logStream, Logger: g.Logger}
	connect := health.Connect{Dial: g.Dial}
	webChecks := &health.Checker{Pools: []*balance.Pool{web}, Probe: health.HTTP{Path: "/healthy", Connect: connect}, Interval: time.Second, Fast: time.Second / 4, Logger: g.Logger}
	lineChecks := &health.Checker{Pools: []*balance.Pool{lines}, Probe: health.TCP{Connect: connect}, Interval: time.Second, Logger: g.Logger}

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	running.Go(func() { _ = webChecks.Run(ctx) })
	running.Go(func() { _ = lineChecks.Run(ctx) })
	running.Go(func() { fail(requests.Serve(httpLn)) })
	running.Go(func() { fail(streams.Serve(tcpLn)) })
	if g.Admin != "" {
		ln, err := g.listen("-admin", g.Admin)
		if err != nil {
			fail(err)
		} else {
			page := &admin.Handler{
				Title: "examples/gateway", Pools: []*balance.Pool{web, lines}, Routers: map[string]*l7.Router{"http": routes},
				Limits: map[string]admin.Limit{"per client": perClient}, Servers: map[string]admin.Server{"http": requests, "tcp": streams},
				Upstreams: []*l7.Upstream{connections}, Checks: []admin.Prober{webChecks, lineChecks}, Allow: admin.Local, Logger: g.Logger,
			}
			running.Go(func() { serveAdmin(ctx, ln, page) })
			fmt.Fprintf(g.Out, "The page for operators is http://%s/\n", ln.Addr())
		}
	}
	fmt.Fprint(g.Out, tryNext(httpLn.Addr(), tcpLn.Addr(), g.Broken))

	<-ctx.Done()
	fmt.Fprintln(g.Out, "draining")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	running.Go(func() { _ = requests.Shutdown(drain) })
	running.Go(func() { _ = streams.Shutdown(drain) })
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err // a server failed, nobody asked us to end
	}
	return nil
}

// serveAdmin serves the page until ctx is done.
func serveAdmin(ctx context.Context, ln net.Listener, page *admin.Handler) {
	srv := &http.Server{Handler: page, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	_ = srv.Serve(ln)
}

// routes are what the gateway does with a request. The first that matches is
// taken.
func (g *Gateway) routes(pool *balance.Pool, connections *l7.Upstream, perClient *ratelimit.Keyed[netip.Addr]) *l7.Router {
	to := func(app string) http.Handler {
		some := pool.Subset(func(e balance.Endpoint) bool { return e.Labels["app"] == app })
		return &l7.Proxy{Pool: some, Upstream: connections}
	}
	web, beta := to("web"), to("beta")
	first := &l7.Proxy{Pool: pool.Subset(func(e balance.Endpoint) bool { return e.Name == "one" }), Upstream: connections}

	return l7.NewRouter(
		l7.Route{Name: "servers", Match: l7.Path("/servers"), Handler: showServers(pool)},
		l7.Route{Name: "break", Match: l7.All{l7.Path("/break"), l7.Method("POST")}, Handler: first},
		l7.Route{Name: "api", Match: l7.Host("api.localhost"), Handler: &l7.Limit[netip.Addr]{Limiter: perClient, Next: web}},
		l7.Route{Name: "docs", Match: l7.PathPrefix("/docs"), Handler: beta},
		l7.Route{Name: "beta", Match: l7.Any{l7.Header{Name: "X-Beta", Value: "yes"}, l7.Cookie{Name: "beta", Value: "yes"}}, Handler: beta},
		l7.Route{Name: "web", Handler: web},
	)
}

// showServers answers with a line for each server. Any handler will do here;
// this one is native, so it costs no *http.Request.
func showServers(pool *balance.Pool) http.Handler {
	return l7.HandlerFunc(func(x *l7.Exchange) {
		var page strings.Builder
		for _, e := range pool.Explain() {
			fmt.Fprintf(&page, "%-6s %-9v %s\n", e.Server.Name(), e.State, e.Reason)
		}
		x.Respond(http.StatusOK, nil, page.String())
	})
}

// startWeb starts the HTTP servers and returns the pool of them.
func (g *Gateway) startWeb(ctx context.Context) (*balance.Pool, error) {
	pool := &balance.Pool{Name: "web", Policy: balance.RoundRobin{}}
	var members []balance.Endpoint
	for _, name := range []string{"one", "two", "three"} {
		ln, err := g.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		s := &http.Server{Handler: &webServer{name: name, broken: g.Broken}}
		g.servers.Go(func() { _ = s.Serve(ln) })
		context.AfterFunc(ctx, func() { _ = s.Close() })
		app := "web"
		if name == "three" {
			app = "beta"
		}
		members = append(members, balance.Endpoint{Name: name, Addr: ln.Addr().String(), Labels: map[string]string{"app": app}})
	}
	return pool, pool.Set(members...)
}

// startLines starts the TCP server and returns the pool of it.
func (g *Gateway) startLines(ctx context.Context) (*balance.Pool, error) {
	ln, err := g.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g.servers.Go(func() { lineServer{"four"}.Serve(ctx, ln) })
	pool := &balance.Pool{Name: "lines"}
	return pool, pool.Set(balance.Endpoint{Name: "four", Addr: ln.Addr().String()})
}

func (g *Gateway) logStream(r *l4.Record) {
	g.Logger.Info("connection", "remote", r.Remote, "server", r.Server, "in", r.BytesIn, "out", r.BytesOut, "total", r.Total, "end", r.Termination)
}

// listen says which flag to change if the address is taken.
func (g *Gateway) listen(flag, addr string) (net.Listener, error) {
	ln, err := g.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with %s", err, flag)
	}
	return ln, nil
}

func tryNext(http, tcp net.Addr, broken time.Duration) string {
	text := `The gateway serves HTTP on HTTP and TCP on TCP. Try, in another terminal:

  curl http://HTTP/                                # one and two in turn
  curl -H 'Host: api.localhost' http://HTTP/       # by host, three at once, then two a second
  curl http://HTTP/docs/intro                      # by path, to three
  curl -H 'X-Beta: yes' http://HTTP/               # by header, to three
  curl -b beta=yes http://HTTP/                    # by cookie, to three
  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{http_code}\n' -H 'Host: api.localhost' http://HTTP/; done
  printf 'hello\nbye\n' | curl -s telnet://TCP    # lines over TCP
  curl http://HTTP/servers                         # how each server is
  curl -X POST http://HTTP/break                   # one fails for BROKEN: look at /servers again

Ctrl-C drains and ends.
`
	return strings.NewReplacer("HTTP on HTTP", "HTTP on "+http.String(), "TCP on TCP", "TCP on "+tcp.String(),
		"//HTTP", "//"+http.String(), "//TCP", "//"+tcp.String(), "BROKEN", broken.String()).Replace(text)
}
