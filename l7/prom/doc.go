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
// # Metrics
//
// What ends in _total is a counter. Latencies and waits are histograms, all else is a gauge.
//
// Of each of Servers:
//
//	penstock_front_connections{front}
//		Open connections of clients.
//	penstock_front_parked_connections{front}
//		Open connections that have no goroutine.
//	penstock_front_accepted_connections_total{front}
//		Connections accepted.
//	penstock_front_accept_errors_total{front}
//		Times that a listener failed.
//	penstock_front_at_limit_total{front}
//		Times that accepting a connection had to wait, or was refused, because MaxConns were open.
//	penstock_front_tls_handshakes_total{front}
//		TLS handshakes with clients.
//	penstock_front_tls_handshake_errors_total{front}
//		TLS handshakes with clients that failed.
//	penstock_front_requests_total{front,code}
//		Requests that have ended, by the class of their status.
//	penstock_front_ends_total{front,cause}
//		Connections (l4) or requests (l7) that have ended, by cause.
//	penstock_front_received_bytes_total{front}
//		Bytes from clients: all (l4) or bodies (l7).
//	penstock_front_sent_bytes_total{front}
//		Bytes to clients: all (l4) or bodies (l7).
//
// Of each of Pools:
//
//	penstock_pool_servers{pool}
//		Servers in the pool.
//	penstock_pool_usable_servers{pool}
//		Servers that may get new work.
//	penstock_pool_in_flight_requests{pool}
//		Requests at servers.
//	penstock_pool_queued_requests{pool}
//		Requests that wait for a server.
//	penstock_pool_retrying_requests{pool}
//		Retries in progress.
//	penstock_pool_picks_total{pool}
//		Servers picked.
//	penstock_pool_outcomes_total{pool,class}
//		Work that has ended, by how.
//	penstock_pool_panicking{pool}
//		Whether a tier uses all its servers because too few are healthy.
//	penstock_pool_retries_total{pool}
//		Times that a request was given another server, hedges included.
//	penstock_pool_hedges_total{pool}
//		Hedges that the budget allowed.
//	penstock_pool_retry_budget_refusals_total{pool}
//		Retries and hedges that the budget refused.
//	penstock_pool_no_server_total{pool}
//		Requests that found no server.
//	penstock_pool_queue_full_total{pool}
//		Requests that found no place in the queue.
//	penstock_pool_queue_timeouts_total{pool}
//		Requests that waited in the queue for too long.
//	penstock_pool_latency_seconds{pool}
//		How long servers took to answer.
//	penstock_pool_queue_wait_seconds{pool}
//		How long requests were in the queue, with or without success.
//	penstock_pool_discovery_last_success_timestamp_seconds{pool}
//		When discovery last returned a good list of servers.
//	penstock_pool_discovery_failing{pool}
//		Whether discovery has failed since then.
//
// Of each server of Pools, without PoolsOnly; connections and streams with Upstreams, probes with Checks, latency with ServerLatency:
//
//	penstock_server_used{pool,server}
//		Whether the server gets new work now.
//	penstock_server_in_flight_requests{pool,server}
//		Requests at the server.
//	penstock_server_in_flight_limit{pool,server}
//		How many requests the server may have now; absent without a limit.
//	penstock_server_queued_requests{pool,server}
//		Requests that wait for this server and no other.
//	penstock_server_weight{pool,server}
//		Its weight, slow start applied; 0 if it is not used.
//	penstock_server_picks_total{pool,server}
//		Times that it was picked.
//	penstock_server_outcomes_total{pool,server,class}
//		Work that has ended, by how.
//	penstock_server_state{pool,server,state}
//		1 with the state that the server is in; it has no series with another state.
//	penstock_server_state_seconds_total{pool,server,state}
//		Time spent in each state.
//	penstock_server_latency_seconds{pool,server}
//		How long it took to answer.
//	penstock_server_connections{pool,server}
//		Connections to the server.
//	penstock_server_idle_connections{pool,server}
//		Connections to it without a request.
//	penstock_server_streams{pool,server}
//		Streams of HTTP/2 to it.
//	penstock_server_dials_total{pool,server}
//		Connections to it begun.
//	penstock_server_dial_errors_total{pool,server}
//		Connections to it that failed, TLS included.
//	penstock_server_reuses_total{pool,server}
//		Requests that reused a connection, or got a stream of one.
//	penstock_server_probes_total{pool,server}
//		Health checks done.
//	penstock_server_probe_failures_total{pool,server}
//		Health checks that the server failed.
//	penstock_server_probe_duration_seconds{pool,server}
//		How long the last health check took.
//	penstock_server_probe_timestamp_seconds{pool,server}
//		When the last health check ended.
//
// Of each route of Routers:
//
//	penstock_route_requests_total{router,route,code}
//		Requests that have ended, by the class of their status.
//	penstock_route_received_bytes_total{router,route}
//		Bytes of request bodies.
//	penstock_route_sent_bytes_total{router,route}
//		Bytes of reply bodies.
//
// Of each of Limits:
//
//	penstock_limit_taken_total{limit}
//		Requests that were within the limit.
//	penstock_limit_refused_total{limit}
//		Requests refused, or that would have been if the limit did not only count.
//	penstock_limit_keys{limit}
//		Keys kept.
//	penstock_limit_bans_total{limit}
//		Bans begun.
//	penstock_limit_lost_keys_total{limit}
//		Keys forgotten while part of their limit was used up.
//	penstock_limit_lost_bans_total{limit}
//		Keys forgotten although they were banned.
//	penstock_limit_untracked_total{limit}
//		Requests admitted without being counted, because there was no place for the key.
//	penstock_limit_held_places{limit}
//		Places taken. Only of limits on concurrency.
//	penstock_limit_places{limit}
//		Places in all. Only of limits on concurrency.
//	penstock_limit_queued_requests{limit}
//		Requests that wait for a place. Only of limits on concurrency.
//	penstock_limit_bytes_total{limit}
//		Bytes paced by the limit. Only of limits on bandwidth.
//	penstock_limit_delayed_bytes_total{limit}
//		Bytes that were delayed. Only of limits on bandwidth.
//	penstock_limit_local_total{limit}
//		Decisions made locally because the shared store could not be reached.
//	penstock_limit_store_questions_total{limit}
//		Requests to the shared store.
//
// A server whose work has ended, after [balance.Server.SetAdmin] with Drain or Maint, is
// found by
//
//	penstock_server_used == 0 and penstock_server_in_flight_requests == 0
//
// # Labels
//
// A label is a name that the host or its discovery has given (front, pool, server,
// router, route, limit), or one of a fixed list (class, cause, code, state). Nothing that
// a client sends becomes a label, so clients cannot add series. A name that is not
// UTF-8 is shown as Go quotes it.
//
// A pool has about 70 series; each of its servers has about 36, or about 61 with
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
