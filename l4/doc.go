// SPDX-License-Identifier: Apache-2.0

// Package l4 is the layer of bytes: connections that are accepted, looked at,
// balanced and relayed.
//
//	net.Listener            ListenConfig makes light ones
//	    |
//	  Server                accepts, counts, records, shuts down
//	    |  ServeConn
//	  Handler ...           limits, PROXY header, TLS, Router: each hands on to the next
//	    |
//	  Proxy                 takes a lease of a balance.Pool, dials, tries another
//	    |
//	  relay                 both ways, half-close, timeouts, splice
//
// Handlers are small and made of literals, so that a server reads from the
// outside to the inside:
//
//	s := &l4.Server{Handler: &l4.Proxy{Pool: pool}}
//	err := s.Serve(ln)
//
// A Handler of your own owns its connection: it must close it, or pass it on to the next.
//
// A Conn is the connection that all of them see. It reads ahead without
// losing a byte and waits without holding a buffer. On Linux a relay between
// plain sockets has no goroutine of its own: a Parker, one for each processor,
// moves the data when epoll says so. Everything else (TLS, other systems, the
// in-memory network of package l4test) has two goroutines a relay. An idle relay
// between plain sockets takes 1.4 KB of memory, one with TLS on the client's side
// 28 KB (proportional set size of a process with 9 000 relays, and 2 000 with TLS,
// over loopback, each of which had sent and received a few bytes).
//
// Where a Linux of at least 5.18 on amd64 or arm64 allows io_uring(7), short reads and
// writes of many sockets are made in one system call. That is all it is used for: no call
// is left to the kernel. Where it is forbidden (by seccomp, as in a container of Docker, or
// by kernel.io_uring_disabled), they are made one by one, and so they are in a program built
// with -tags penstock_noring.
//
// Handlers, matchers, DialFunc, Key, Handshake, OnDone and other code of the host
// are called without a lock and may call any function of this package, but for the
// func given to [Record.Note]. Deadlines of the host's connections and listeners are
// set, and datagrams written, while locks are held: those methods must neither wait
// nor call back.
//
// # MySQL
//
// There is no AcceptMySQL beside [AcceptPostgreSQL]. A MySQL server speaks first: its greeting
// (Protocol::HandshakeV10 in the "Connection Phase" of the MySQL Source Code Documentation) has
// the server's version, the id that KILL takes, the authentication plugin and a nonce. Only
// then does a client ask for TLS (Protocol::SSLRequest) and name a server in its ClientHello. A
// proxy that routes by that name has to write the greeting before it knows the server:
//
//   - The client's first answer is made with the proxy's nonce. A server whose nonce is another
//     refuses it (mysql_native_password), or asks for the password itself each time
//     (caching_sha2_password). A proxy that ends TLS could ask the client again
//     (Protocol::AuthSwitchRequest), plugin by plugin: it would be a part of the authentication.
//   - Capabilities, version and id are those of the proxy. MariaDB's differ from MySQL's, and the
//     client's KILL ends another session or none.
//   - Clients on MySQL's C library send no server name unless they are told to
//     (--tls-sni-servername, since MySQL 8.1).
//
// What works is a [Proxy] as it is, with a listener for each pool: an address or a port of its own
// for each database. TLS, the nonce and the client certificate then pass from end to end, and a
// [Router] may still choose by the client's address. health.MySQL probes such servers.
//
// # Testing
//
// Package l4test is a network in memory, with faults on demand. All of this package
// runs over it in a bubble of testing/synctest, so that a test of an hour's silence
// takes a millisecond.
//
// # Machinery
//
// [Parker], [NewParker], [Buffer], [BufferPool], [DefaultBufferBytes], [Transfer],
// [Abort], [CutShort], [AcceptPause], [Batch], [AppendHashed], [AppendLogName], [AppendMillis], [ErrNotQuiet], [Adopt], [Conn.Ask], [Conn.ReadBuffer], [Conn.TryReadBuffer],
// [Conn.WriteMore], [Conn.AckNow], [Conn.Parkable], [Conn.RemoteAddrPort], [PeerCache], [Handshake], [TakeTurn] and [KeepJA4] are
// exported because package l7 is made of them too. A host needs none of them. They may
// change in any version: no promise of compatibility covers them.
//
// # Where to read next
//
// To read the code: handler.go, server.go, proxy.go, relay.go; then
// wire_linux.go for what happens when there is much to do.
package l4

// The wings of the package, the lowest first. A file that no other has is in core; the
// first word of a name shows it else. A file uses what is declared in files of its own
// wing and of those below it; TestWings of the module's root checks that.
//
// core: connections and what waits for them, the Server, the relay and its events, listeners
// and sockets, records; and what is pure: buffers, PROXY headers, ClientHellos
//
// router: the Router, its matchers and its listener
//
//	router router_*
//
// handlers: what a connection passes through before it is relayed
//
//	attach handlers_check limit limit_* postgresql_* proxyproto_accept proxyproto_send tls_*
//
// proxy: the Proxy and the Dialer, which take leases of a pool
//
//	proxy proxy_*
//
// datagrams: the UDPProxy
//
//	udp udp_*
