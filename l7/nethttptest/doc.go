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
// Each test that does not pass in a mode is in a list below testdata. foreign.txt and
// so on have what is different, at most 20 things a mode, each with the tests that show
// it: a choice, and where it is documented, or what has no counterpart, and what takes
// its place. foreign-not.txt and so on have the tests that do not apply, by one of these
// rules:
//
//	log               it compares what http.Server writes into its ErrorLog
//	text              it compares the text of an error
//	internals         it relies on insides of net/http
//	other connection  it takes the connection of the http.Server behind a Proxy for the client's
//	clock             it passes or not as the machine is busy
//
// Tests that use what net/http's own export_test.go exports of a Server or a Transport
// are left out without a line. A test of a list that passes fails the run, so the lists
// can only shrink. It takes minutes, and runs if PENSTOCK_NETHTTP is set:
//
//	PENSTOCK_NETHTTP=1 go test -v -timeout 10m .
//
// [l7.Server]: https://pkg.go.dev/github.com/penstock-lb/penstock/l7#Server
// [l7.Transport]: https://pkg.go.dev/github.com/penstock-lb/penstock/l7#Transport
package nethttptest
