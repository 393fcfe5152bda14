// SPDX-License-Identifier: Apache-2.0

// Package prom shows the figures of a gateway to Prometheus.
//
//	registry.MustRegister(&prom.Collector{
//		Pools:   []*balance.Pool{web},
//		Servers: map[string]prom.Server{"https": gateway},
//	})
//
// Figures are read when Prometheus scrapes, and at no other time: a request costs the
// same with and without a Collector.
//
// # Labels
//
// A label is a name that the host or its discovery has given (front, pool, server,
// router, route, limit), or one of a fixed list (class, cause, code, state). Nothing that
// a client sends becomes a label, so clients cannot add series. A name that is not
// UTF-8 is shown as Go quotes it.
//
// A pool has about 70 series; each of its servers has about 35, or about 60 with
// [Collector.ServerLatency]; a route has 8. For pools of thousands of servers there is
// [Collector.PoolsOnly].
//
// A server in two of Pools, such as a pool and a subset of it, appears under both: select
// one pool before you sum.
//
// # Histograms
//
// Histograms are classic ones, with a bucket for each power of two of a second from
// 2^-13, which is 122 µs, to 64 s; or native ones with [Collector.NativeHistograms],
// which have the same bounds and further ones below. A latency equal to a bound counts in
// the bucket above it. The buckets are the same for every pool, so they can be added.
//
// Each bucket of a pool's latency has the last request with a trace as its exemplar, if
// [Collector.Note] is called for each request.
//
// # Scrapes
//
// Each scrape reads all figures again. If the address is open to others, limit the cost by
// MaxRequestsInFlight of promhttp.HandlerOpts.
//
// # Counters
//
// The counters of a server begin at 0 when it joins its pool, and
// [balance.Server.ClearStats] sets its outcomes and latencies back. Prometheus
// treats both as a counter reset.
//
// The folder has alert rules (alerts.yml) and a dashboard for Grafana
// (dashboard.json).
//
// # Dependencies
//
// It is a module of its own. Besides penstock it brings github.com/prometheus/client_golang,
// and what that depends on: client_model, common and procfs of Prometheus, beorn7/perks,
// cespare/xxhash, munnerz/goautoneg, golang.org/x/sys and google.golang.org/protobuf.
package prom
