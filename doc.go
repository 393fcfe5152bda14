// SPDX-License-Identifier: Apache-2.0

// Package penstock is an embeddable load balancer: a program imports it, wires
// pools, routes, health checks and limits in code, and owns the process, the
// listeners, the signals and the goroutines.
//
// The five packages below do the work, and each is useful without the others:
//
//	    clients
//	       |
//	+------|-------------------------------------------------+
//	|      v                            your program         |
//	|  net.Listener                                          |
//	|      |                                                 |
//	|      v                                                 |
//	|  l4.Server ---> l4.Router ---> l4.Proxy --------+      |
//	|  (bytes)            |                           |      |
//	|                     v                           |      |
//	|  l7.Server ---> l7.Router ---> middleware       |      |
//	|  (requests)                       |             |      |
//	|                                   v             |      |
//	|               ratelimit?      l7.Proxy ---------+      |
//	|               may it now?                       |      |
//	|                                                 v      |
//	|  health.Checker --- up, down --->  balance.Pool        |
//	|  (is it well?)                     (which server?)     |
//	+-------------------------------------------------|------+
//	                                                  v
//	                                               servers
//
// Their parts in it:
//
//   - balance chooses a server: a Pool of Endpoints, a Policy, and a Lease for
//     each piece of work. It does no I/O and knows no protocol.
//   - health probes the servers of pools and takes failed ones out of use.
//   - ratelimit says whether something may happen now.
//   - l4 relays connections and datagrams.
//   - l7 relays requests: HTTP/1.1, HTTP/2, WebSocket.
//
// Arrows between the packages only point down:
//
//	           examples/
//	l4  <--------  l7            health
//	  \           /  \          /
//	   \         /    \        /          ratelimit stands alone;
//	    +---- balance ---------+          l4 and l7 import it
//
// This package has what all of them share: [ConfigError], the error of a
// literal that is wrong. Every literal that can be wrong has a method
//
//	Check() error
//
// which returns all mistakes at once, its own and those of what it holds, each
// with the path to the field. A literal is checked where it is first used: a
// server with a wrong tree of handlers fails in Serve (it cannot see into an
// http.ServeMux: call Check of the handlers there), a pool in Set, a checker in
// Run. A program that calls Check itself, in a test or for a new
// configuration at run time, finds mistakes earlier. The root imports none of
// the packages, and each of them may import it.
//
// # Testing
//
// Each part has a test kit that hosts may use: l4/l4test is a network in memory,
// l7/l7test an HTTP server that misbehaves on demand, l7/chaostest plays stories
// of failures drawn from seeds, health/healthtest has services that checks find
// ill, and balance/balancetest checks an algorithm. All of them run in a bubble of
// testing/synctest: the tests of examples/apigateway play a whole gateway through a
// day of failures in about a second.
//
// # Where to read next
//
// To read the code, begin with the package comment of balance, then pool.go
// and roundrobin.go there; then the program in examples/gateway, which wires
// all five packages and needs nothing but Go to run.
package penstock
