// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"math"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// An exemplar is a request that stands for a bucket.
type exemplar struct {
	seconds float64
	trace   string
	at      time.Time
}

// exemplars holds the last request with a trace of each bucket of one pool.
type exemplars [highest - classicLowest + 2]atomic.Pointer[exemplar]

// Note keeps a request that has a trace as the exemplar of its bucket in the latency of its
// pool. It is to be called by OnDone of servers:
//
//	gateway.OnDone = collector.Note
//
// One request is kept for each bucket of each of Pools that has a Name. A scrape in the
// OpenMetrics format shows them: see EnableOpenMetrics of promhttp.HandlerOpts.
func (c *Collector) Note(r *l7.Record) {
	c.init()
	kept := c.kept[r.Pool]
	if kept == nil || r.FirstByte == 0 {
		return
	}
	trace := r.Trace
	if c.Trace != nil {
		trace = c.Trace(r)
	}
	if trace == "" || len(trace) > mostTrace || !utf8.ValidString(trace) {
		return
	}
	took := max(r.FirstByte-r.Connected, 0)
	_, above := math.Frexp(took.Seconds()) // the exponent of the bound above it
	kept[min(max(above, classicLowest), highest+1)-classicLowest].Store(&exemplar{took.Seconds(), strings.Clone(trace), r.Start})
}

const mostTrace = 64 // bytes of an id; OpenMetrics allows 128 characters for an exemplar

// keep makes room for exemplars.
func (c *Collector) keep(pools []*balance.Pool) {
	c.kept = make(map[string]*exemplars)
	for _, p := range pools {
		if p != nil && p.Name != "" {
			c.kept[p.Name] = new(exemplars)
		}
	}
}

// with adds the exemplars to a histogram.
func (e *exemplars) with(m prometheus.Metric) prometheus.Metric {
	if e == nil {
		return m
	}
	var list []prometheus.Exemplar
	for i := range e {
		if x := e[i].Load(); x != nil {
			list = append(list, prometheus.Exemplar{Value: x.seconds, Labels: prometheus.Labels{"trace_id": x.trace}, Timestamp: x.at})
		}
	}
	if shown, err := prometheus.NewMetricWithExemplars(m, list...); err == nil {
		return shown
	}
	return m // without exemplars
}
