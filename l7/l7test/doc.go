// SPDX-License-Identifier: Apache-2.0

// Package l7test has an [Origin], an HTTP server that misbehaves on demand:
// it answers late or early, stalls, resets, frames badly, sends interim
// replies, trailers, bytes behind the end, or GOAWAY. It is for tests of
// gateways, over any listener, and made for the in-memory network of l4test
// and for synctest:
//
//	o := &l7test.Origin{Scripts: []l7test.Script{
//		{l7test.Reset()},                                 // the first request
//		{l7test.Wait(time.Minute), l7test.Reply(200, "late")}, // the second and all later ones
//	}}
//	go o.Serve(ln)
//	defer o.Close()
//
// It reads requests with a strict parser of its own, so that what it has got
// ([Origin.Requests], [Origin.Faults]) is evidence.
package l7test
