// SPDX-License-Identifier: Apache-2.0

// Package l4test is a network in memory for tests: listeners and connections
// with buffers, half-close, deadlines, addresses and resets as TCP has them,
// and faults on demand.
//
// Nothing in it sleeps, polls or keeps a goroutine, and all waiting is on
// channels, so that a whole gateway with its clients and servers runs inside
// a testing/synctest bubble, on fake time:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := l4test.NewNetwork()
//		ln, _ := n.Listen("tcp", "10.0.0.1:80")
//		go server.Serve(ln)
//		c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
//		...
//	})
//
// A Network used in a bubble has to be made in it.
package l4test
