// SPDX-License-Identifier: Apache-2.0

package main

// A Scenario is one kind of work that each peer does.
type Scenario struct {
	Name  string
	Title string // what it is, in the words of a report
	Unit  string // of work: what the CPU time is divided by
	Front Front
	Load  Load
}

// A Front is one way to reach a peer.
type Front string

// The fronts of a peer.
const (
	HTTP Front = "http" // HTTP/1.1 in plain text
	TLS  Front = "tls"  // HTTP/1.1 and HTTP/2 over TLS
	TCP  Front = "tcp"  // bytes
)

// A Load is what the clients do. Each connection asks again as soon as it has its reply.
type Load struct {
	HTTP2   bool   // by ALPN; else HTTP/1.1
	Path    string // of each request, unless there are routes
	Routes  int    // ask for /r0/ to /r(Routes-1)/ in turn; 0 means Path only
	Conns   int    // connections
	Streams int    // requests at once on each of them; only in HTTP/2
	Close   bool   // a new connection for each request
	Browser bool   // request fields such as a browser sends, 20 of them
}

// scenarios are the work of the mode "peers".
var scenarios = []Scenario{
	{"http-small", "HTTP/1.1, small reply", "request", HTTP, Load{Path: "/small", Conns: 64}},
	{"http-browser", "HTTP/1.1, 20 request fields", "request", HTTP, Load{Path: "/small", Conns: 64, Browser: true}},
	{"http-64k", "HTTP/1.1, reply of 64 KiB", "request", HTTP, Load{Path: "/64k", Conns: 64}},
	{"http-close", "HTTP/1.1, new connection each", "request", HTTP, Load{Path: "/small", Conns: 64, Close: true}},
	{"tls-small", "HTTPS, small reply", "request", TLS, Load{Path: "/small", Conns: 64}},
	{"tls-close", "HTTPS, new handshake each", "request", TLS, Load{Path: "/small", Conns: 64, Close: true}},
	{"h2-small", "HTTP/2 over TLS, small reply", "request", TLS, Load{Path: "/small", HTTP2: true, Conns: 16, Streams: 16}},
	{"h2-64k", "HTTP/2 over TLS, reply of 64 KiB", "request", TLS, Load{Path: "/64k", HTTP2: true, Conns: 8, Streams: 8}},
	{"tcp-small", "TCP, message and answer", "exchange", TCP, Load{Path: "/small", Conns: 64}},
	{"tcp-close", "TCP, new connection each", "connection", TCP, Load{Path: "/small", Conns: 64, Close: true}},
}

// quickly are those of -quick.
var quickly = []string{"http-small", "h2-small", "tcp-small"}

// A Mode is a part of a run that can be had alone.
type Mode struct {
	Name  string
	Title string
	Of    string   // what Sizes count; empty in a mode without sizes
	Sizes []int    // what is varied
	Works []string // names of scenarios
}

// modes are all of them, in the order of a report.
var modes = []Mode{
	{Name: "peers", Title: "CPU time per unit of work"},
	{Name: "idle", Title: "Memory of idle connections"},
	{Name: "connections", Title: "Client connections", Of: "connections", Sizes: []int{10, 100, 1000, 9000}, Works: []string{"http-small"}},
	{Name: "servers", Title: "Servers in a pool", Of: "servers", Sizes: []int{10, 100, 1000, 10000}, Works: []string{"http-small"}},
	{Name: "routes", Title: "Routes by path", Of: "routes", Sizes: []int{10, 100, 1000, 10000}, Works: []string{"http-small"}},
	{Name: "cores", Title: "Processors", Of: "processors", Sizes: []int{1, 2}, Works: []string{"http-small", "h2-small"}},
}

// scenario returns the scenario of that name.
func scenario(name string) (Scenario, bool) {
	for _, s := range scenarios {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}
