// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/internal/figures"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A Collector reads the figures of a gateway for Prometheus. A field that is nil or empty
// adds no series. The fields must not change once it is registered. A Collector may be used by
// many goroutines at once.
type Collector struct {
	Pools     []*balance.Pool       // told apart by their Name, or else by their place: "pool 1"
	Routers   map[string]*l7.Router // by a name for them
	Limits    map[string]Limit      // by a name for them
	Servers   map[string]Server     // what accepts connections, by a name for it: the label front
	Upstreams []*l7.Upstream        // whose connections are shown with the servers of Pools
	Checks    []*health.Checker     // whose probes are shown with the servers of Pools

	PoolsOnly     bool // leave out the figures of single servers
	ServerLatency bool // add a histogram of latencies for each server to that of its pool

	// NativeHistograms shows latencies as native histograms of schema 0: one series for each
	// instead of 21. Prometheus reads them only if it scrapes by protobuf (its setting
	// scrape_native_histograms). False means classic histograms.
	NativeHistograms bool

	// Trace returns the trace id of a request, for the exemplars that Note keeps, or "" if
	// the request has none. Nil means Record.Trace, which l7/otel sets.
	Trace func(r *l7.Record) string

	once  sync.Once
	wrong error // what Check says
	descs descs
	kept  map[string]*exemplars // by the name of a pool
}

// A Limit is a limiter with figures: *ratelimit.Limiter, Keyed, Shared, Concurrency,
// Adaptive and Bandwidth.
type Limit interface{ Stats() ratelimit.Stats }

// A Server accepts connections: *l4.Server and *l7.Server, whose Stats are shown too.
type Server interface{ Open() int }

// Check returns what is wrong with c, and with what it shows.
func (c *Collector) Check() error {
	var m penstock.Mistakes
	figures.Set[Limit, Server, *health.Checker]{
		Pools: c.Pools, Routers: c.Routers, Limits: c.Limits, Servers: c.Servers, Upstreams: c.Upstreams, Checks: c.Checks,
	}.Check(&m, "Collector")
	return m.Err()
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	c.init()
	for _, d := range c.descs.all() {
		ch <- d
	}
}

// Collect implements prometheus.Collector. If Check finds a mistake, the scrape fails
// with it.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.init()
	if c.wrong != nil {
		ch <- prometheus.NewInvalidMetric(c.descs.pool.servers.desc, c.wrong)
		return
	}
	c.fronts(ch)
	c.pools(ch)
	c.routes(ch)
	c.limits(ch)
}

func (c *Collector) init() {
	c.once.Do(func() {
		c.wrong = c.Check()
		c.descs = newDescs()
		c.keep(c.Pools)
	})
}

// A metric is a name with its help text, and its type.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// put sends a value. Its labels are made valid UTF-8: one that is not would fail the whole scrape.
func put[V int | uint64 | float64](ch chan<- prometheus.Metric, m metric, v V, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(v), valid(labels)...)
}

func valid(labels []string) []string {
	for i, l := range labels {
		if !utf8.ValidString(l) {
			quoted := strconv.Quote(l)
			labels[i] = quoted[1 : len(quoted)-1] // unlike U+FFFD, this keeps different names different
		}
	}
	return labels
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// label turns a word of this library into a label value: "connect failed" becomes connect_failed.
func label(word string) string { return strings.ReplaceAll(word, " ", "_") }
