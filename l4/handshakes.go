// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// Handshake is t.HandshakeContext, for any code that does many of them at once. A
// handshake computes for a fraction of a millisecond, many at once take their turn, and a
// goroutine whose connection becomes readable meanwhile would wait for all of them. So each
// computes after what is ready: see handshakes. That needs Linux, and a
// Conn over a socket under t.
//
// It is for package l7: see "Machinery" in the package documentation.
func Handshake(ctx context.Context, t *tls.Conn) error {
	c, mine := socketUnder(t.NetConn()), new(handshakeTurn)
	if c != nil {
		mine.wait.Lock()
		c.note(func(n *noted) { n.turn = mine })
		c.flags.set(shakesHands)
		defer func() { // also if a callback of the configuration panics
			c.flags.clear(shakesHands)
			c.note(func(n *noted) { n.turn = nil })
			mine.end(c, time.Now())
		}()
	}
	err := t.HandshakeContext(ctx)
	if err == nil && c != nil && mine.endedByRead(c) {
		c.AckNow()
	}
	return err
}

// endedByRead reports that the peer of c has said the last word, so that it may be waiting
// for nothing but the acknowledgment: the kernel delays that by 40 ms, and a client without
// TCP_NODELAY does not send its request before. OpenSSL is not met by this, since it sends
// the session tickets of TLS 1.3 after the client's Finished, and not before.
func (t *handshakeTurn) endedByRead(c *Conn) bool { return t.had && c.bytesWritten.Load() == t.sent }

// TakeTurn returns when the caller may compute for long, a tenth of a millisecond or more, on
// behalf of a client: in turn with handshakes. It must not hold a lock.
//
// It is for package l7: see "Machinery" in the package documentation.
func TakeTurn() {
	t := &handshakeTurn{unmeasured: true}
	t.wait.Lock()
	turns.await(t)
}

// A handshakeTurn is that of one handshake. It lasts until the handshake has to wait for its peer,
// whatever it reads until then: the bytes do not tell which of them make work, as a peer may
// cut a flight anywhere. Only the handshake itself uses it, but for the lock.
type handshakeTurn struct {
	wait  sync.Mutex // is locked; the handshake waits by locking it again. It may be unlocked outside of its bubble of testing/synctest, from where a channel must not be closed
	had   bool       // it is not the first
	since time.Time  // its begin; zero if it has ended
	sent  int64      // bytes written before it

	unmeasured bool // it is one of TakeTurn
}

// end ends the turn of c at now, if it lasts. One in which c has written nothing has most
// likely computed nothing: part of a flight was read.
func (t *handshakeTurn) end(c *Conn, now time.Time) {
	if !t.since.IsZero() && c.bytesWritten.Load() > t.sent {
		turns.took(now.Sub(t.since))
	}
	t.since = time.Time{}
}

// turn is that of the handshake above c, if one is done.
func (c *Conn) turn() *handshakeTurn {
	if n := c.noted.Load(); n != nil {
		return n.turn
	}
	return nil
}

// awaitTurn waits, after a read of a handshake, until it may compute.
func (c *Conn) awaitTurn() error {
	t := c.turn()
	if t == nil || !t.since.IsZero() {
		return nil
	}
	turns.await(t)
	t.had, t.since, t.sent = true, time.Now(), c.bytesWritten.Load()
	if c.flags.has(isClosed) { // the answer could not be sent
		return net.ErrClosed
	}
	return nil
}

// readInHandshake is readRaw for TLS above c that does its handshake.
func (c *Conn) readInHandshake(p []byte) (n int, err error) {
	began := time.Now()
	n, waited, err := c.readRaw(p)
	if t := c.turn(); waited && t != nil {
		t.end(c, began)
	}
	if n > 0 && err == nil {
		err = c.awaitTurn()
	}
	return n, err
}
