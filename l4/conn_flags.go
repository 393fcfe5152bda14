// SPDX-License-Identifier: Apache-2.0

package l4

import "sync/atomic"

// connFlags are those of a Conn, which many goroutines set and read.
type connFlags struct{ bits atomic.Uint32 }

const (
	isClosed    uint32 = 1 << iota // Close has been called
	peerGone                       // a read or the Parker has seen that the peer ended its stream or the connection
	readEOF                        // a read has returned io.EOF
	moreFollows                    // TLS above it writes more at once
	noReads                        // TLS above it takes what it holds, and no more
	shakesHands                    // TLS above it does its handshake: a read is followed by a wait for a turn
)

func (f *connFlags) has(flag uint32) bool { return f.bits.Load()&flag != 0 }

// set reports whether flag was set before.
func (f *connFlags) set(flag uint32) (was bool) { return f.bits.Or(flag)&flag != 0 }

func (f *connFlags) clear(flag uint32) { f.bits.And(^flag) }

// noted is what handlers have found out about a connection. It is replaced, not changed.
type noted struct {
	proxy *ProxyHeader   // accepted on it, or nil
	ja4   *string        // of the client, or nil
	turn  *handshakeTurn // of the handshake that TLS above it does; nil unless shakesHands is set
}

// note replaces c.noted by what f makes of it.
func (c *Conn) note(f func(n *noted)) {
	for {
		var n noted
		was := c.noted.Load()
		if was != nil {
			n = *was
		}
		if f(&n); c.noted.CompareAndSwap(was, &n) {
			return
		}
	}
}

// proxied returns the header accepted on c, or nil.
func (c *Conn) proxied() *ProxyHeader {
	if n := c.noted.Load(); n != nil {
		return n.proxy
	}
	return nil
}
