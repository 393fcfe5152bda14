// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/internal/figures"
	"github.com/penstock-lb/penstock/ratelimit"
)

// fronts shows Servers.
func (c *Collector) fronts(ch chan<- prometheus.Metric) {
	d := &c.descs.front
	for name, srv := range c.Servers {
		switch srv := srv.(type) {
		case interface{ Stats() l7.Stats }:
			st := srv.Stats()
			put(ch, d.requests, st.Requests[0], name, "none")
			for i, n := range st.Requests[1:] {
				put(ch, d.requests, n, name, code(i+1))
			}
			c.front(ch, name, &l4.Stats{
				Open: st.Open, Parked: st.Parked, Accepted: st.Accepted, AcceptErrors: st.AcceptErrors, AtLimit: st.AtLimit, Handshakes: st.Handshakes,
				HandshakeErrors: st.HandshakeErrors, Ends: st.Ends, BytesIn: st.BytesIn, BytesOut: st.BytesOut,
			})
		case interface{ Stats() l4.Stats }:
			st := srv.Stats()
			c.front(ch, name, &st)
		default:
			put(ch, d.open, srv.Open(), name)
		}
	}
}

// front shows the figures that servers of l4 and l7 have in common.
func (c *Collector) front(ch chan<- prometheus.Metric, name string, st *l4.Stats) {
	d := &c.descs.front
	put(ch, d.open, st.Open, name)
	put(ch, d.parked, st.Parked, name)
	put(ch, d.accepted, st.Accepted, name)
	put(ch, d.acceptErrors, st.AcceptErrors, name)
	put(ch, d.atLimit, st.AtLimit, name)
	put(ch, d.handshakes, st.Handshakes, name)
	put(ch, d.handshakeErrors, st.HandshakeErrors, name)
	put(ch, d.in, st.BytesIn, name)
	put(ch, d.out, st.BytesOut, name)
	for cause, n := range st.Ends {
		put(ch, d.ends, n, name, label(l4.Cause(cause).String()))
	}
}

func (c *Collector) pools(ch chan<- prometheus.Metric) {
	conns := c.conns()
	for i, p := range c.Pools {
		name := figures.PoolName(c.Pools, i)
		c.pool(ch, name, p)
		if c.PoolsOnly {
			continue
		}
		for _, e := range p.Explain() {
			c.server(ch, name, &e)
			if st, ok := conns[e.Server]; ok {
				c.conn(ch, name, e.Server.Name(), &st)
			}
			c.check(ch, name, e.Server)
		}
	}
}

func (c *Collector) pool(ch chan<- prometheus.Metric, name string, p *balance.Pool) {
	d, st := &c.descs.pool, p.Stats()
	put(ch, d.servers, st.Servers, name)
	put(ch, d.usable, st.Usable, name)
	put(ch, d.inFlight, st.InFlight, name)
	put(ch, d.queued, st.Queued, name)
	put(ch, d.retrying, st.Retries, name)
	put(ch, d.picks, st.Picks, name)
	put(ch, d.panicking, flag(st.Panicking), name)
	put(ch, d.retries, st.Retried, name)
	put(ch, d.hedges, st.Hedged, name)
	put(ch, d.overBudget, st.OverBudget, name)
	put(ch, d.noServer, st.NoServer, name)
	put(ch, d.queueFull, st.QueueFull, name)
	put(ch, d.queueTimeouts, st.QueueTimeouts, name)
	outcomes(ch, d.outcomes, st.Outcomes, name)
	c.histogram(ch, d.latency, &st.Latency, c.kept[p.Name], name)
	c.histogram(ch, d.waits, &st.Waits, nil, name)
	if src, ok := p.SourceState(); ok {
		put(ch, d.sourceFailing, flag(src.Err != nil), name)
		if !src.Good.IsZero() {
			put(ch, d.sourceGood, unix(src.Good), name)
		}
	}
}

func (c *Collector) server(ch chan<- prometheus.Metric, pool string, e *balance.Explanation) {
	d, st, name := &c.descs.server, e.Server.Stats(), e.Server.Name()
	put(ch, d.used, flag(e.Used), pool, name)
	put(ch, d.inFlight, st.InFlight, pool, name)
	if e.Limit > 0 {
		put(ch, d.limit, e.Limit, pool, name)
	}
	put(ch, d.queued, st.Queued, pool, name)
	put(ch, d.weight, e.Weight, pool, name)
	put(ch, d.picks, st.Picks, pool, name)
	outcomes(ch, d.outcomes, st.Outcomes, pool, name)
	put(ch, d.state, 1, pool, name, label(e.State.String()))
	for s, took := range st.InState {
		if s := balance.State(s); s != balance.StateLeft {
			put(ch, d.states, took.Seconds(), pool, name, label(s.String()))
		}
	}
	if c.ServerLatency {
		c.histogram(ch, d.latency, &st.Latency, nil, pool, name)
	}
}

// conns sums up the connections to each server.
func (c *Collector) conns() map[*balance.Server]l7.UpstreamStats {
	all := make(map[*balance.Server]l7.UpstreamStats)
	if c.PoolsOnly {
		return all
	}
	for _, u := range c.Upstreams {
		for s, st := range u.Stats() {
			sum := all[s]
			sum.Open += st.Open
			sum.Idle += st.Idle
			sum.Streams += st.Streams
			sum.Dials += st.Dials
			sum.DialErrors += st.DialErrors
			sum.Reuses += st.Reuses
			all[s] = sum
		}
	}
	return all
}

func (c *Collector) conn(ch chan<- prometheus.Metric, pool, name string, st *l7.UpstreamStats) {
	d := &c.descs.server
	put(ch, d.open, st.Open, pool, name)
	put(ch, d.idle, st.Idle, pool, name)
	put(ch, d.streams, st.Streams, pool, name)
	put(ch, d.dials, st.Dials, pool, name)
	put(ch, d.dialErrors, st.DialErrors, pool, name)
	put(ch, d.reuses, st.Reuses, pool, name)
}

// check shows the results of the first checker that probes s.
func (c *Collector) check(ch chan<- prometheus.Metric, pool string, s *balance.Server) {
	var st health.Status
	i := slices.IndexFunc(c.Checks, func(h *health.Checker) (ok bool) { st, ok = h.Status(s); return ok })
	if i < 0 {
		return
	}
	d, name := &c.descs.server, s.Name()
	put(ch, d.probes, st.Probes, pool, name)
	put(ch, d.probesFailed, st.Failed, pool, name)
	if !st.Last.IsZero() {
		put(ch, d.probeTook, st.Took.Seconds(), pool, name)
		put(ch, d.probeLast, unix(st.Last), pool, name)
	}
}

// routes shows Routers. The figures of routes with the same name are added.
func (c *Collector) routes(ch chan<- prometheus.Metric) {
	d := &c.descs.route
	for name, r := range c.Routers {
		sums := make(map[string]l7.RouteStats)
		for st := range r.Stats() {
			sum := sums[st.Route]
			for i, n := range st.Requests {
				sum.Requests[i] += n
			}
			sum.BytesIn += st.BytesIn
			sum.BytesOut += st.BytesOut
			sums[st.Route] = sum
		}
		for route, st := range sums {
			put(ch, d.requests, st.Requests[0], name, route, "none")
			for i, n := range st.Requests[1:] {
				put(ch, d.requests, n, name, route, code(i+1))
			}
			put(ch, d.in, st.BytesIn, name, route)
			put(ch, d.out, st.BytesOut, name, route)
		}
	}
}

func (c *Collector) limits(ch chan<- prometheus.Metric) {
	d := &c.descs.limit
	for name, l := range c.Limits {
		st := l.Stats()
		switch l.(type) {
		case *ratelimit.Bandwidth:
			put(ch, d.bytes, st.Bytes, name)
			put(ch, d.delayed, st.Delayed, name)
			continue
		case interface{ TryAcquire() bool }:
			put(ch, d.held, st.Held, name)
			put(ch, d.places, st.Places, name)
			put(ch, d.queued, st.Queued, name)
			put(ch, d.taken, st.Taken, name)
			put(ch, d.refused, st.Refused, name)
			continue
		}
		put(ch, d.taken, st.Taken, name)
		put(ch, d.refused, st.Refused, name)
		put(ch, d.keys, st.Keys, name)
		put(ch, d.bans, st.Bans, name)
		put(ch, d.lost, st.Lost, name)
		put(ch, d.lostBans, st.LostBans, name)
		put(ch, d.untracked, st.Untracked, name)
		put(ch, d.local, st.Local, name)
		put(ch, d.asked, st.Asked, name)
	}
}

func outcomes(ch chan<- prometheus.Metric, m metric, o balance.Outcomes, labels ...string) {
	for class, n := range o {
		put(ch, m, n, append(labels[:len(labels):len(labels)], label(balance.Class(class).String()))...)
	}
}

// Bounds of buckets are powers of two of a second, of which these are the exponents.
const (
	nativeLowest  = -18 // shorter latencies are in the zero bucket of a native histogram
	classicLowest = -13 // 122 µs
	highest       = 6   // 64 s: longer latencies share a bucket
)

var started = time.Now() // native histograms carry the time since which they count

// histogram shows h: its counts by powers of two of a second.
func (c *Collector) histogram(ch chan<- prometheus.Metric, m metric, h *balance.Histogram, e *exemplars, labels ...string) {
	var count uint64
	below := make(map[int]uint64) // by exponent
	next := nativeLowest
	for end, n := range h.Buckets() {
		count = n
		if bound := math.Ldexp(1, next); next <= highest && end.Seconds() >= bound {
			below[next] = n
			next++
		}
	}
	if c.NativeHistograms {
		buckets := make(map[int]int64)
		put := func(i int, n uint64) {
			if n > 0 {
				buckets[i] = int64(n)
			}
		}
		for i := nativeLowest + 1; i <= highest; i++ {
			put(i, below[i]-below[i-1])
		}
		put(highest+1, count-below[highest])
		native, err := prometheus.NewConstNativeHistogram(m.desc, count, h.Sum.Seconds(), buckets, nil,
			below[nativeLowest], 0, math.Ldexp(1, nativeLowest), started, valid(labels)...)
		if err != nil {
			native = prometheus.NewInvalidMetric(m.desc, err)
		}
		ch <- e.with(native)
		return
	}
	buckets := make(map[float64]uint64)
	for i := classicLowest; i <= highest; i++ {
		buckets[math.Ldexp(1, i)] = below[i]
	}
	ch <- e.with(prometheus.MustNewConstHistogram(m.desc, count, h.Sum.Seconds(), buckets, valid(labels)...))
}

func code(class int) string { return strconv.Itoa(class) + "xx" }

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
