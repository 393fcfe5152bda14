// SPDX-License-Identifier: Apache-2.0

// Package samebytes has no code, only tests. Handlers and middleware that programs
// bring along (chi, gin, echo, two WebSocket packages, gRPC, CORS, OpenTelemetry,
// gzip, the Coraza firewall, what net/http has) are served by an http.Server and by an [l7.Server], and
// what a client gets must be the same: over HTTP/1 each byte but the value of Date,
// over HTTP/2 the fields, the body and the trailer.
//
// BenchmarkProxyCPU of package cpu below has the cost of such middleware around a Proxy:
//
//	go test -run '^$' -bench ProxyCPU -benchtime 20000x ./cpu
//
// [l7.Server]: https://pkg.go.dev/github.com/penstock-lb/penstock/l7#Server
package samebytes
