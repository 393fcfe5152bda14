// SPDX-License-Identifier: Apache-2.0

// Package h3 serves HTTP/3 (RFC 9114), as a [Front] of an [l7.Server]. QUIC is that of
// quic-go, and HTTP/3 over it is this package's.
//
//	gateway := &l7.Server{Addr: ":443", Handler: router, TLSConfig: certificates}
//	front := &h3.Front{Server: gateway}
//	go front.ListenAndServeTLS("", "")          // UDP
//	log.Fatal(gateway.ListenAndServeTLS("", "")) // TCP
//
// Handlers are those of the Server, native ones and others, and need to know nothing of
// HTTP/3. They see a (w, r) of the standard front:
//
//	stream --> HEADERS --> (w, r) --> Exchange --> Router, middleware, Proxy
//
// Trailers, interim replies and full duplex work as on the other fronts. A WebSocket comes
// as an extended CONNECT (RFC 9220), and handlers see it as the GET with Upgrade that it is
// in HTTP/1. A request that its client resets ends the context of its exchange. Server push
// is not used, nor are HTTP datagrams and QPACK's dynamic table.
//
// It is a module of its own. Besides penstock it brings github.com/quic-go/quic-go and
// github.com/quic-go/qpack, and what these depend on: golang.org/x/crypto, x/net and x/sys.
package h3
