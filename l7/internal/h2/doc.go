// SPDX-License-Identifier: Apache-2.0

// Package h2 implements the protocol of HTTP/2 (RFC 9113) without a connection:
// frames, header compression, flow control, stream states, and the detection of
// abuse. It does no I/O, starts no goroutine, takes no lock and reads no clock.
// The front and the upstream of package l7 share it.
//
// The owner of a [Conn] reads bytes from its peer and passes them to
// [Conn.Parse], which returns the first frame; [Conn.Receive] then returns its
// meaning as an [Event]. Output, including answers to SETTINGS and PING, is
// appended to [Conn.Out], which the owner writes at any time.
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
