// SPDX-License-Identifier: Apache-2.0

package prom

import "github.com/prometheus/client_golang/prometheus"

// descs are all metrics, grouped by what they measure.
type descs struct {
	front struct {
		open, parked, accepted, acceptErrors, atLimit, handshakes, handshakeErrors, requests, ends, in, out metric
	}
	pool struct {
		servers, usable, inFlight, queued, retrying, picks, outcomes, panicking, retries, hedges, overBudget metric
		noServer, queueFull, queueTimeouts, latency, waits, sourceGood, sourceFailing                        metric
	}
	server struct {
		used, inFlight, limit, queued, weight, picks, outcomes, state, states, latency metric
		open, idle, streams, dials, dialErrors, reuses                                 metric
		probes, probesFailed, probeTook, probeLast                                     metric
	}
	route struct{ requests, in, out metric }
	limit struct{ taken, refused, keys, bans, lost, lostBans, untracked, local, asked, held, places, queued, bytes, delayed metric }

	list []*prometheus.Desc
}

func (d *descs) all() []*prometheus.Desc { return d.list }

func (d *descs) add(kind prometheus.ValueType, name, help string, labels []string) metric {
	m := metric{prometheus.NewDesc("penstock_"+name, help, labels, nil), kind}
	d.list = append(d.list, m.desc)
	return m
}

// of returns funcs that add gauges and counters whose names begin with prefix.
func (d *descs) of(prefix string, labels ...string) (gauge, counter func(name, help string, more ...string) metric) {
	adder := func(kind prometheus.ValueType) func(string, string, ...string) metric {
		return func(name, help string, more ...string) metric {
			return d.add(kind, prefix+name, help, append(labels[:len(labels):len(labels)], more...))
		}
	}
	return adder(prometheus.GaugeValue), adder(prometheus.CounterValue)
}

func newDescs() descs {
	var d descs
	d.addFronts()
	d.addPools()
	d.addServers()
	d.addConns()
	d.addRoutes()
	d.addLimits()
	return d
}

func (d *descs) addFronts() {
	gauge, counter := d.of("front_", "front")
	f := &d.front
	f.open = gauge("connections", "Open connections of clients.")
	f.parked = gauge("parked_connections", "Open connections that have no goroutine.")
	f.accepted = counter("accepted_connections_total", "Connections accepted.")
	f.acceptErrors = counter("accept_errors_total", "Times that a listener failed.")
	f.atLimit = counter("at_limit_total", "Times that accepting a connection had to wait, or was refused, because MaxConns were open.")
	f.handshakes = counter("tls_handshakes_total", "TLS handshakes with clients.")
	f.handshakeErrors = counter("tls_handshake_errors_total", "TLS handshakes with clients that failed.")
	f.requests = counter("requests_total", "Requests that have ended, by the class of their status.", "code")
	f.ends = counter("ends_total", "Connections (l4) or requests (l7) that have ended, by cause.", "cause")
	f.in = counter("received_bytes_total", "Bytes from clients: all (l4) or bodies (l7).")
	f.out = counter("sent_bytes_total", "Bytes to clients: all (l4) or bodies (l7).")
}

func (d *descs) addPools() {
	gauge, counter := d.of("pool_", "pool")
	p := &d.pool
	p.servers = gauge("servers", "Servers in the pool.")
	p.usable = gauge("usable_servers", "Servers that may get new work.")
	p.inFlight = gauge("in_flight_requests", "Requests at servers.")
	p.queued = gauge("queued_requests", "Requests that wait for a server.")
	p.retrying = gauge("retrying_requests", "Retries in progress.")
	p.picks = counter("picks_total", "Servers picked.")
	p.outcomes = counter("outcomes_total", "Work that has ended, by how.", "class")
	p.panicking = gauge("panicking", "Whether a tier uses all its servers because too few are healthy.")
	p.retries = counter("retries_total", "Times that a request was given another server, hedges included.")
	p.hedges = counter("hedges_total", "Hedges that the budget allowed.")
	p.overBudget = counter("retry_budget_refusals_total", "Retries and hedges that the budget refused.")
	p.noServer = counter("no_server_total", "Requests that found no server.")
	p.queueFull = counter("queue_full_total", "Requests that found no place in the queue.")
	p.queueTimeouts = counter("queue_timeouts_total", "Requests that waited in the queue for too long.")
	p.latency = gauge("latency_seconds", "How long servers took to answer.")
	p.waits = gauge("queue_wait_seconds", "How long requests were in the queue, with or without success.")
	p.sourceGood = gauge("discovery_last_success_timestamp_seconds", "When discovery last returned a good list of servers.")
	p.sourceFailing = gauge("discovery_failing", "Whether discovery has failed since then.")
}

func (d *descs) addServers() {
	gauge, counter := d.of("server_", "pool", "server")
	s := &d.server
	s.used = gauge("used", "Whether the server gets new work now.")
	s.inFlight = gauge("in_flight_requests", "Requests at the server.")
	s.limit = gauge("in_flight_limit", "How many requests the server may have now; absent without a limit.")
	s.queued = gauge("queued_requests", "Requests that wait for this server and no other.")
	s.weight = gauge("weight", "Its weight, slow start applied; 0 if it is not used.")
	s.picks = counter("picks_total", "Times that it was picked.")
	s.outcomes = counter("outcomes_total", "Work that has ended, by how.", "class")
	s.state = gauge("state", "1 with the state that the server is in; it has no series with another state.", "state")
	s.states = counter("state_seconds_total", "Time spent in each state.", "state")
	s.latency = gauge("latency_seconds", "How long it took to answer.")
}

func (d *descs) addConns() {
	gauge, counter := d.of("server_", "pool", "server")
	s := &d.server
	s.open = gauge("connections", "Connections to the server.")
	s.idle = gauge("idle_connections", "Connections to it without a request.")
	s.streams = gauge("streams", "Streams of HTTP/2 to it.")
	s.dials = counter("dials_total", "Connections to it begun.")
	s.dialErrors = counter("dial_errors_total", "Connections to it that failed, TLS included.")
	s.reuses = counter("reuses_total", "Requests that reused a connection, or got a stream of one.")
	s.probes = counter("probes_total", "Health checks done.")
	s.probesFailed = counter("probe_failures_total", "Health checks that the server failed.")
	s.probeTook = gauge("probe_duration_seconds", "How long the last health check took.")
	s.probeLast = gauge("probe_timestamp_seconds", "When the last health check ended.")
}

func (d *descs) addRoutes() {
	_, counter := d.of("route_", "router", "route")
	d.route.requests = counter("requests_total", "Requests that have ended, by the class of their status.", "code")
	d.route.in = counter("received_bytes_total", "Bytes of request bodies.")
	d.route.out = counter("sent_bytes_total", "Bytes of reply bodies.")
}

func (d *descs) addLimits() {
	gauge, counter := d.of("limit_", "limit")
	l := &d.limit
	l.taken = counter("taken_total", "Requests that were within the limit.")
	l.refused = counter("refused_total", "Requests refused, or that would have been if the limit did not only count.")
	l.keys = gauge("keys", "Keys kept.")
	l.bans = counter("bans_total", "Bans begun.")
	l.lost = counter("lost_keys_total", "Keys forgotten while part of their limit was used up.")
	l.lostBans = counter("lost_bans_total", "Keys forgotten although they were banned.")
	l.untracked = counter("untracked_total", "Requests admitted without being counted, because there was no place for the key.")
	l.held = gauge("held_places", "Places taken. Only of limits on concurrency.")
	l.places = gauge("places", "Places in all. Only of limits on concurrency.")
	l.queued = gauge("queued_requests", "Requests that wait for a place. Only of limits on concurrency.")
	l.bytes = counter("bytes_total", "Bytes paced by the limit. Only of limits on bandwidth.")
	l.delayed = counter("delayed_bytes_total", "Bytes that were delayed. Only of limits on bandwidth.")
	l.local = counter("local_total", "Decisions made locally because the shared store could not be reached.")
	l.asked = counter("store_questions_total", "Requests to the shared store.")
}
