// SPDX-License-Identifier: Apache-2.0

// Package l7 serves, routes, changes and proxies HTTP requests.
//
// Its parts are [http.Handler]s: a [Router], a [Proxy] and the middleware
// between them work under any [http.Server], in httptest, over HTTP/2 and
// HTTP/3. Under [Server] the same handlers work on the bytes of the connection,
// at a fraction of the cost:
//
//	pool := &balance.Pool{}
//	... pool.Set(...) ...
//	gateway := &l7.Server{
//		Addr: ":8080",
//		Handler: l7.NewRouter(
//			l7.Route{Match: l7.PathPrefix("/api"), Handler: &l7.Proxy{Pool: pool}},
//			l7.Route{Handler: http.FileServer(http.Dir("static"))},
//		),
//	}
//	log.Fatal(gateway.ListenAndServe())
//
// # Two fronts, one logic
//
//	  HTTP/1, HTTP/2                    HTTP/1, HTTP/2
//	        |                                 |
//	Server's byte front  --hands over-->  http.Server
//	        |                                 |
//	        +-----> Exchange <-----(w, r)-----+
//	                   |
//	        Router, middleware, Proxy        native handlers
//	                   |
//	               Upstream                  HTTP/1 and HTTP/2 to the servers
//	                   ^
//	               Transport                 an http.RoundTripper over a pool
//
// An [Exchange] is one request and its reply. A handler with ServeExchange is
// native ([Handler]): all handlers of this package are, and those of a host may
// be. The byte front parses a head once and strictly, runs the native handlers,
// and relays to a pooled connection. Where the tree ends in a handler that is not
// native, the byte front makes (w, r) for it, as http.Server would. A request of HTTP/1
// whose body is still to come, or that asks for an upgrade or waits for a 100 (Continue),
// goes to an embedded http.Server, which takes over the connection; the handlers
// that have run by then do not run again.
//
// # What is refused
//
// A message on which two parsers could disagree is answered 400 (or 502, if a
// server sent it) and ends its connection: both Transfer-Encoding and
// Content-Length, either of them malformed or more than one value, bare LF or
// CR, white space before a colon, folded lines, control characters, a Host or a
// target outside of the grammar. A Proxy refuses TRACE, and CONNECT unless its
// field Connect allows it; it forwards only upgrades to WebSocket unless told
// otherwise. No part of a refused request reaches a server.
//
// Under an [http.Server], net/http has parsed the request first: it joins folded
// lines, accepts bare LF as a line end and white space in and after a chunk size,
// ignores Content-Length next to Transfer-Encoding, and refuses empty lines
// before a request. The request to the server is well-formed all the same. Where
// net/http does not reveal what the client sent, the connection is closed after
// the reply: after a chunked body, and after any request of HTTP/1.0. Its HTTP/2
// answers 400 to connection-specific fields where RFC 9113, section 8.2.2, has the
// stream reset, as the byte front does.
//
// # What callbacks may do
//
// Handlers, matchers, editors, filters, stores, keys, OnDone and the funcs of an
// [Upstream] are called without a lock, and may call any function of this
// package. Only deadlines of connections are set while locks are held, since
// that is how a wait is ended: SetDeadline, SetReadDeadline and SetWriteDeadline
// of the host's connections must neither wait nor call back.
//
// # Where to read next
//
// The last section of this comment names the steps that a request takes, file by file.
// The table at the end of the file doc.go says which files belong together, and which may
// use which.
package l7

// The wings of the package, the lowest first. The first word of a file's name
// says which wing it is in, and a file without one of these words is in core. A
// file uses only what is declared in files of its own wing and of those below
// it; TestWings in the module's root checks that.
//
// core: the Exchange and what all others build on: fields, syntax, framing, records, limits
//
// fronts: the client's side of an exchange: the byte front, HTTP/2, and (w, r) of an http.Server
//
//	front front_*
//
// upstream: the server's side: connections, tries, and the Proxy that relays
//
//	up_* upstream
//
// routing: matchers, the Router, and the handlers that choose a pool
//
//	route_* router router_*
//
// middleware: handlers that look at an exchange, change it, or answer it
//
//	middleware_*
//
// transport: the work of a Proxy for a program that calls other services
//
//	transport transport_*
