// SPDX-License-Identifier: Apache-2.0

// Package nethttptest runs the tests that Go has for net/http and httputil
// against package l7. They are read from GOROOT when they run and are no part of
// this module. With an overlay of the go command, net/http is built in a way that
// has each http.Server of a test served by an [l7.Server], or each request of an
// http.Transport sent by an [l7.Transport] (package stand says how), in four modes:
//
//	foreign  an l7.Server with the test's handler
//	member   an l7.Server with a Proxy before the test's handler, in process
//	before   an l7.Server with a Proxy before the test's own http.Server
//	client   an l7.Transport in the place of the test's http.Transport
//
// Each test that does not pass in a mode has a line in a file below testdata with
// the reason. A test of that list that passes fails the run, so the list can only
// shrink. It takes minutes, and runs if PENSTOCK_NETHTTP is set:
//
//	PENSTOCK_NETHTTP=1 go test -v -timeout 10m .
//
// [l7.Server]: https://pkg.go.dev/github.com/penstock-lb/penstock/l7#Server
// [l7.Transport]: https://pkg.go.dev/github.com/penstock-lb/penstock/l7#Transport
package nethttptest
