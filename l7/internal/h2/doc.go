// SPDX-License-Identifier: Apache-2.0

// Package h2 is the protocol of HTTP/2 (RFC 9113) without a connection under
// it: frames, header compression, flow control, stream states, and the
// counting of what only an attacker does. It does no I/O, starts no goroutine,
// takes no lock and reads no clock. The front and the client side of package
// l7 share it.
//
// The owner of a [Conn] reads bytes from its peer and gives them to
// [Conn.Parse], which cuts a frame off; [Conn.Receive] then says what the
// frame means, as an [Event]. What has to be written, answers to SETTINGS and
// PING included, is appended to [Conn.Out], which the owner writes when it
// sees fit.
//
//	bytes                               bytes
//	  |                                   ^
//	  v                                   |
//	Parse --Frame--> Receive --Event--> owner
//	                    |                 |
//	                    +----> Out <------+  WriteHead, WriteData, Reset, ...
//
// A Conn is not safe for concurrent use. Parse, Receive and Decode belong to the
// goroutine that reads. The owner holds a lock around all calls but Parse and
// Decode, which share nothing with the methods that send.
package h2
