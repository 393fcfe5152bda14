// SPDX-License-Identifier: Apache-2.0

package prom_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/prom"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A world is a gateway at work.
type world struct {
	c       *prom.Collector
	web     *balance.Pool
	limit   *ratelimit.Keyed[netip.Addr]
	metrics http.Handler
	url     string // of the gateway
}

func newWorld(t *testing.T) *world {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusBadGateway)
		}
		_, _ = w.Write([]byte("hello"))
	}))
	t.Cleanup(origin.Close)
	w := &world{web: &balance.Pool{Name: "web"}, limit: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}}}
	require.NoError(t, w.web.Set(balance.Endpoint{Name: "one", Addr: origin.Listener.Addr().String()}))
	up := &l7.Upstream{}
	routes := l7.NewRouter(
		l7.Route{Name: "page", Match: l7.PathPrefix("/page"), Handler: &l7.Proxy{Pool: w.web, Upstream: up}},
		l7.Route{Name: "page", Handler: &l7.Proxy{Pool: w.web, Upstream: up}}, // the same name, on purpose
	)
	gateway := &l7.Server{Handler: routes}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() { defer close(served); _ = gateway.Serve(lis) }()
	check := &health.Checker{Pools: []*balance.Pool{w.web}}
	ctx, stop := context.WithCancel(t.Context())
	go func() { _ = check.Run(ctx) }()
	t.Cleanup(func() { stop(); _ = gateway.Close(); <-served })
	w.url = "http://" + lis.Addr().String()
	w.c = &prom.Collector{
		Pools: []*balance.Pool{w.web, {}}, Routers: map[string]*l7.Router{"public": routes}, Limits: map[string]prom.Limit{"per client": w.limit, "at once": &ratelimit.Concurrency{Max: 7}, "bytes": &ratelimit.Bandwidth{BytesPerSecond: 1}},
		Servers:   map[string]prom.Server{"http": gateway, "tcp": &l4.Server{}, "bad \xff": &l4.Server{}, "bad \xfe": &l4.Server{}},
		Upstreams: []*l7.Upstream{up}, Checks: []*health.Checker{check}, ServerLatency: true,
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.c)
	w.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return w
}

// get sends a request and waits until the gateway has counted it, which is after the
// client has its reply.
func (w *world) get(t *testing.T, path string) {
	t.Helper()
	gateway := w.c.Servers["http"].(*l7.Server)
	before := gateway.Stats().Requests
	reply, err := http.Get(w.url + path)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, reply.Body)
	require.NoError(t, err)
	require.NoError(t, reply.Body.Close())
	require.Eventually(t, func() bool {
		now := gateway.Stats().Requests
		return now.Total() > before.Total()
	}, time.Minute, time.Millisecond)
}

func (w *world) scrape(t *testing.T) string {
	t.Helper()
	rec := httptest.NewRecorder()
	w.metrics.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, rec.Code, rec.Body)
	return rec.Body.String()
}

// names returns the series of a scrape, without those of probes, which come when one ends.
func names(scrape string) map[string]bool {
	all := make(map[string]bool)
	for line := range strings.Lines(scrape) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "penstock_server_probe") {
			all[line[:strings.LastIndexByte(line, ' ')]] = true
		}
	}
	return all
}

func TestFiguresAreThoseOfStats(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.get(t, "/page")
	}
	w.get(t, "/fail")
	client := netip.MustParseAddr("192.0.2.1")
	w.limit.Take(client, 1)
	w.limit.Take(client, 1)
	for range 3 { // picked, but only what has ended is an outcome
		l, err := w.web.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		defer l.Done(balance.Outcome{})
	}
	l, err := w.web.Acquire(t.Context(), balance.Request{})
	require.NoError(t, err)
	l.Done(balance.Outcome{Class: balance.ConnectFailed, Latency: 3 * time.Second})
	require.Eventually(t, func() bool { return strings.Contains(w.scrape(t), "penstock_server_probe_timestamp_seconds{") }, time.Minute, time.Millisecond)
	s := w.scrape(t)
	for _, line := range []string{
		`penstock_front_requests_total{code="2xx",front="http"} 3`,
		`penstock_front_requests_total{code="5xx",front="http"} 1`,
		`penstock_front_requests_total{code="none",front="http"} 0`,
		`penstock_front_at_limit_total{front="http"} 0`,
		`penstock_front_at_limit_total{front="tcp"} 0`,
		`penstock_front_connections{front="bad \\xff"} 0`,
		`penstock_route_requests_total{code="2xx",route="page",router="public"} 3`,
		`penstock_route_requests_total{code="5xx",route="page",router="public"} 1`,
		`penstock_route_sent_bytes_total{route="page",router="public"} 20`,
		`penstock_pool_servers{pool="web"} 1`,
		`penstock_pool_servers{pool="pool 2"} 0`,
		`penstock_pool_picks_total{pool="web"} 8`,
		`penstock_pool_in_flight_requests{pool="web"} 3`,
		`penstock_pool_outcomes_total{class="connect_failed",pool="web"} 1`,
		`penstock_pool_latency_seconds_bucket{pool="web",le="2"} 4`,
		`penstock_pool_latency_seconds_bucket{pool="web",le="4"} 5`,
		`penstock_pool_latency_seconds_bucket{pool="web",le="64"} 5`,
		`penstock_pool_latency_seconds_count{pool="web"} 5`,
		`penstock_server_latency_seconds_count{pool="web",server="one"} 5`,
		`penstock_server_used{pool="web",server="one"} 1`,
		`penstock_server_outcomes_total{class="connect_failed",pool="web",server="one"} 1`,
		`penstock_server_dials_total{pool="web",server="one"} 1`,
		`penstock_server_reuses_total{pool="web",server="one"} 3`,
		`penstock_server_probe_failures_total{pool="web",server="one"} 0`,
		`penstock_limit_taken_total{limit="per client"} 1`,
		`penstock_limit_refused_total{limit="per client"} 1`,
		`penstock_limit_keys{limit="per client"} 1`,
		`penstock_limit_places{limit="at once"} 7`,
		`penstock_limit_held_places{limit="at once"} 0`,
		`penstock_limit_queued_requests{limit="at once"} 0`,
		`penstock_limit_refused_total{limit="at once"} 0`,
		`penstock_limit_bytes_total{limit="bytes"} 0`,
		`penstock_limit_delayed_bytes_total{limit="bytes"} 0`,
	} {
		require.True(t, strings.Contains(s, "\n"+line+"\n"), line)
	}
	require.Equal(t, 20+1, strings.Count(s, `penstock_pool_latency_seconds_bucket{pool="web"`))
}

// TestClientsCannotAddSeries sends what a client can choose: paths, hosts, methods, fields.
func TestClientsCannotAddSeries(t *testing.T) {
	w := newWorld(t)
	w.get(t, "/page")
	before := names(w.scrape(t))
	for i := range 50 {
		r, err := http.NewRequest(fmt.Sprintf("M%d", i), fmt.Sprintf("%s/p%d?q=%d", w.url, i, i), nil)
		require.NoError(t, err)
		r.Host = fmt.Sprintf("h%d.example", i)
		r.Header.Set("X-Tenant", r.Host)
		reply, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, reply.Body.Close())
		w.limit.Take(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1)
	}
	require.Equal(t, before, names(w.scrape(t)))
}

func TestPoolsOnlyLeavesOutServers(t *testing.T) {
	w := newWorld(t)
	w.get(t, "/page")
	w.c.PoolsOnly = true
	s := w.scrape(t)
	require.NotContains(t, s, "penstock_server_")
	require.Contains(t, s, "penstock_pool_servers")
}

func TestDiscoveryIsShown(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	p := w.c.Pools[1]
	go func() {
		followed <- p.Follow(ctx, balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
			update([]balance.Endpoint{{Name: "a", Addr: "127.0.0.1:1"}}, nil)
			update(nil, errors.New("away"))
			<-ctx.Done()
			return ctx.Err()
		}))
	}()
	require.Eventually(t, func() bool {
		return strings.Contains(w.scrape(t), `penstock_pool_discovery_failing{pool="pool 2"} 1`)
	}, time.Minute, 5*time.Millisecond)
	require.Contains(t, w.scrape(t), `penstock_pool_discovery_last_success_timestamp_seconds{pool="pool 2"} `)
	stop()
	<-followed
}

func TestScrapeFailsWithAMistake(t *testing.T) {
	c := &prom.Collector{Pools: []*balance.Pool{{Name: "a"}, {Name: "a"}, nil}, Routers: map[string]*l7.Router{"r": nil}}
	err := c.Check()
	require.ErrorContains(t, err, "Collector.Pools[1].Name")
	require.ErrorContains(t, err, "Collector.Pools[2]")
	require.ErrorContains(t, err, "Collector.Routers[r]")
	var wrong *penstock.ConfigError
	require.ErrorAs(t, err, &wrong)
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	_, err = registry.Gather()
	require.ErrorContains(t, err, "is the name of another pool too")
}

func TestNamesFollowTheConventions(t *testing.T) {
	w := newWorld(t)
	w.get(t, "/page")
	found, err := testutil.CollectAndLint(w.c)
	require.NoError(t, err)
	require.Empty(t, found)
}

// TestCommentHasAllMetrics compares the package comment with Describe: name, labels, help.
func TestCommentHasAllMetrics(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	ch := make(chan *prometheus.Desc, 200)
	(&prom.Collector{}).Describe(ch)
	close(ch)
	parts := regexp.MustCompile(`fqName: "(\w+)", help: "(.*?)", .*variableLabels: \{(.*?)\}`)
	n := 0
	for d := range ch {
		n++
		p := parts.FindStringSubmatch(d.String())
		require.NotNil(t, p, d)
		require.Contains(t, string(doc), fmt.Sprintf("//\t%s{%s}\n//\t\t%s\n", p[1], p[3], p[2]))
	}
	require.Equal(t, n, len(regexp.MustCompile(`//\tpenstock_\w+\{`).FindAll(doc, -1)), "and no others")
}

// TestServerStateIsShown has a server drain: its series has another label then.
func TestServerStateIsShown(t *testing.T) {
	w := newWorld(t)
	require.Contains(t, w.scrape(t), "penstock_server_state{pool=\"web\",server=\"one\",state=\"up\"} 1\n")
	w.web.Server("one").SetAdmin(balance.Drain, "deploy")
	s := w.scrape(t)
	require.Equal(t, 1, strings.Count(s, "\npenstock_server_state{"))
	for _, line := range []string{`penstock_server_state{pool="web",server="one",state="drain"} 1`, `penstock_server_used{pool="web",server="one"} 0`, `penstock_server_in_flight_requests{pool="web",server="one"} 0`} {
		require.Contains(t, s, "\n"+line+"\n")
	}
}

// TestDashboardAndAlertsKnowTheirMetrics compares the names in the files with Describe.
func TestDashboardAndAlertsKnowTheirMetrics(t *testing.T) {
	known := make(map[string]bool)
	ch := make(chan *prometheus.Desc, 200)
	(&prom.Collector{}).Describe(ch)
	close(ch)
	name := regexp.MustCompile(`penstock_\w+`)
	for d := range ch {
		known[name.FindString(d.String())] = true
	}
	for _, file := range []string{"dashboard.json", "alerts.yml", "testdata/alerts_test.yml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		used := name.FindAllString(string(text), -1)
		require.NotEmpty(t, used)
		for _, n := range used {
			require.True(t, known[strings.TrimSuffix(n, "_bucket")], "%s: %s", file, n)
		}
	}
}

func TestExemplarsNameTheTraceOfARequest(t *testing.T) {
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.c)
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	scrape := func() (lines []string) {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
		rec := httptest.NewRecorder()
		metrics.ServeHTTP(rec, r)
		require.Equal(t, 200, rec.Code, rec.Body)
		for line := range strings.Lines(rec.Body.String()) {
			if strings.Contains(line, "trace_id") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		return lines
	}
	start := time.Unix(1e9, 0)
	note := func(pool, trace string, took time.Duration) {
		w.c.Note(&l7.Record{Start: start, Pool: pool, Trace: trace, Connected: time.Millisecond, FirstByte: time.Millisecond + took})
	}
	note("web", "", time.Millisecond)
	note("other", "t0", time.Millisecond)
	note("web", strings.Repeat("x", 65), time.Millisecond)
	note("web", "\xff", time.Millisecond)
	w.c.Note(&l7.Record{Pool: "web", Trace: "no reply"})
	require.Empty(t, scrape())
	note("web", "t1", time.Microsecond)
	note("web", "t2", 3*time.Millisecond)
	note("web", "t3", 3*time.Millisecond)
	note("web", "t4", time.Hour)
	require.Equal(t, []string{
		`penstock_pool_latency_seconds_bucket{pool="web",le="0.0001220703125"} 0 # {trace_id="t1"} 1e-06 1e+09`,
		`penstock_pool_latency_seconds_bucket{pool="web",le="0.00390625"} 0 # {trace_id="t3"} 0.003 1e+09`,
		`penstock_pool_latency_seconds_bucket{pool="web",le="+Inf"} 0 # {trace_id="t4"} 3600.0 1e+09`,
	}, scrape())
	for i := range 10000 {
		note("web", fmt.Sprint(i), time.Duration(i)*time.Millisecond)
		note(fmt.Sprint("from outside ", i), "t", time.Millisecond)
	}
	require.Less(t, len(scrape()), 25, "one for each bucket")
}

func TestNativeHistogramsAgreeWithClassicOnes(t *testing.T) {
	pool := &balance.Pool{Name: "web"}
	require.NoError(t, pool.Set(balance.Endpoint{Addr: "127.0.0.1:1"}))
	var last time.Duration
	for d := time.Duration(1); d < time.Hour; d += d/7 + 1 {
		lease, err := pool.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		lease.Done(balance.Outcome{Class: balance.OK, Latency: d})
		last = d
	}
	read := func(native bool) *dto.Histogram {
		c := &prom.Collector{Pools: []*balance.Pool{pool}, NativeHistograms: native}
		c.Note(&l7.Record{Start: time.Unix(1e9, 0), Pool: "web", Trace: "t", FirstByte: last})
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(c)
		all, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range all {
			if f.GetName() == "penstock_pool_latency_seconds" {
				return f.Metric[0].Histogram
			}
		}
		t.Fatal("no latency")
		return nil
	}
	classic, native := read(false), read(true)
	require.Equal(t, classic.GetSampleCount(), native.GetSampleCount())
	require.Len(t, native.Exemplars, 1)
	require.Zero(t, native.GetSchema())
	require.Equal(t, math.Ldexp(1, -18), native.GetZeroThreshold())
	below := map[float64]uint64{} // as Prometheus reads it: a bucket i of schema 0 ends at 2^i
	count, bucket, i := native.GetZeroCount(), int64(0), 0
	for _, span := range native.PositiveSpan {
		i += int(span.GetOffset())
		for range span.GetLength() {
			bucket += native.PositiveDelta[0]
			native.PositiveDelta = native.PositiveDelta[1:]
			count += uint64(bucket)
			below[math.Ldexp(1, i)] = count
			i++
		}
	}
	require.Equal(t, classic.GetSampleCount(), count)
	require.Equal(t, count, below[128], "what is longer is in the last")
	for _, b := range classic.Bucket {
		if !math.IsInf(b.GetUpperBound(), 1) {
			require.Equal(t, b.GetCumulativeCount(), below[b.GetUpperBound()], b)
		}
	}
}

func TestExemplarsTakeTheTraceOfTheHost(t *testing.T) {
	c := &prom.Collector{Pools: []*balance.Pool{{Name: "web"}}, Trace: func(r *l7.Record) string { return r.ID }}
	c.Note(&l7.Record{Pool: "web", ID: "id-1", FirstByte: time.Millisecond})
	var buf strings.Builder
	ch := make(chan prometheus.Metric, 1000)
	c.Collect(ch)
	close(ch)
	for m := range ch {
		var d dto.Metric
		require.NoError(t, m.Write(&d))
		buf.WriteString(d.String())
	}
	require.Contains(t, buf.String(), "id-1")
}

// A name that comes from discovery stays one label value, whatever is in it.
func TestNamesAddNoSeries(t *testing.T) {
	const evil = "a\"} 1\npenstock_evil{x=\"y\\"
	pool := &balance.Pool{Name: evil}
	require.NoError(t, pool.Set(balance.Endpoint{Name: evil + "s", Addr: "127.0.0.1:1"}))
	registry := prometheus.NewPedanticRegistry()
	c := &prom.Collector{
		Pools: []*balance.Pool{pool}, Limits: map[string]prom.Limit{evil: &ratelimit.Concurrency{Max: 1}}, Servers: map[string]prom.Server{evil: &l7.Server{}},
		Routers: map[string]*l7.Router{evil: l7.NewRouter(l7.Route{Name: evil, Handler: &l7.Deny{}})},
	}
	registry.MustRegister(c)
	c.Note(&l7.Record{Pool: evil, Trace: evil, FirstByte: 1})
	for _, open := range []bool{false, true} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
		rec := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: open}).ServeHTTP(rec, r)
		require.Equal(t, 200, rec.Code, rec.Body)
		for line := range strings.Lines(rec.Body.String()) {
			require.False(t, strings.HasPrefix(line, "penstock_evil"), line)
		}
		require.Contains(t, rec.Body.String(), `penstock_pool_servers{pool="a\"} 1\npenstock_evil{x=\"y\\"} 1`)
	}
}
