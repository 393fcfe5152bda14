// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
)

// Handshake is t.HandshakeContext, for any code that does many of them at once. A
// handshake computes for a fraction of a millisecond, many at once take their turn, and a
// goroutine whose connection becomes readable meanwhile would wait for all of them. So each
// computes only when nothing else is left to do: see handshakes. That needs Linux, and a
// Conn over a socket under t.
//
// It is for package l7: see "Machinery" in the package documentation.
func Handshake(ctx context.Context, t *tls.Conn) error {
	if c := socketUnder(t.NetConn()); c != nil {
		c.flags.set(shakesHands)
		defer c.flags.clear(shakesHands | hadTurn) // also if a callback of the configuration panics
	}
	return t.HandshakeContext(ctx)
}

// TakeTurn returns when the caller may compute for long, a tenth of a millisecond or more, on
// behalf of a client: in turn with handshakes. It must not hold a lock.
//
// It is for package l7: see "Machinery" in the package documentation.
func TakeTurn() { turns.wait(false) }

// awaitTurn waits, after a read of a handshake, until it may compute. A ClientHello that
// takes two reads of crypto/tls takes two turns: the bytes do not tell which is the last.
func (c *Conn) awaitTurn(read []byte) error {
	if finishes(read) {
		return nil
	}
	turns.wait(c.flags.set(hadTurn))
	if c.flags.has(isClosed) { // nobody waits for the answer any more
		return net.ErrClosed
	}
	return nil
}

// finishes reports whether b is the short flight that ends most handshakes of TLS 1.3 (RFC
// 8446, section 4.4.4), perhaps behind a change_cipher_spec. It makes little work. A longer
// one has a certificate, and a ClientHello can come twice.
func finishes(b []byte) bool {
	const changeCipherSpec, applicationData = "\x14\x03\x03\x00\x01\x01", '\x17'
	b = bytes.TrimPrefix(b, []byte(changeCipherSpec))
	return len(b) <= 128 && len(b) > 0 && b[0] == applicationData
}
