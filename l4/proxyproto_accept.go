// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// AcceptProxy is a handler that reads the PROXY header, of either version, from
// connections of a trusted proxy, and passes them to Next. From then on their RemoteAddr
// and LocalAddr are those of the header, if it has any, and [ProxyHeaderOf] returns the
// rest.
//
// From a trusted address a header is mandatory; from any other address no header is read.
// It never guesses, since a client that may send a header could choose its address
// (section 5). A connection that breaks this rule is closed. Any number of connections
// may be served at once; one that is slow to send its header does not delay others.
type AcceptProxy struct {
	Next Handler

	// Trusted are the addresses of the proxies before us. The zero value trusts
	// none.
	Trusted Prefixes

	// TrustUnix trusts connections over a Unix socket, whose permissions restrict
	// who may connect.
	TrustUnix bool

	// Others takes connections from elsewhere, as they are; nil closes them.
	Others Handler

	Timeout  time.Duration // until the header is complete; 0 means 5 s, negative means none
	MaxBytes int           // of a header; 0 means 4 KiB, negative means none but 64 KiB, the most there can be

	checked
}

// ServeConn reads the header of c and passes c to Next.
func (a *AcceptProxy) ServeConn(ctx context.Context, c net.Conn) error {
	if err := a.first(a); err != nil {
		return misconfigured(c, err)
	}
	conn := NewConn(c)
	if !a.trusts(conn.RemoteAddr()) {
		if a.Others != nil {
			return a.Others.ServeConn(ctx, conn)
		}
		return giveUp(ctx, conn, fmt.Errorf("%w: AcceptProxy.Trusted has no prefix with the address of this peer, and there are no Others", ErrRejected), false)
	}
	stop := context.AfterFunc(ctx, func() {
		guard(nil, "connection", func() { breakOff(conn) })
	})
	h, err := a.read(conn)
	stop() // it says nothing of a context that ends at this moment: its funcs run later
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return giveUp(ctx, conn, err, len(conn.Buffered()) == 0)
	}
	conn.note(func(n *noted) { n.proxy = &h })
	return a.Next.ServeConn(ctx, conn)
}

func (a *AcceptProxy) trusts(addr net.Addr) bool {
	if u, ok := addr.(*net.UnixAddr); ok {
		return a.TrustUnix && u != nil
	}
	return a.Trusted.ContainsAddr(addr)
}

// read reads the header of c.
func (a *AcceptProxy) read(c *Conn) (ProxyHeader, error) {
	if timeout := cmp.Or(a.Timeout, defaultPeekTimeout); timeout > 0 {
		if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return ProxyHeader{}, err
		}
	}
	limit := cmp.Or(a.MaxBytes, 4<<10)
	if limit < 0 {
		limit = proxyV2FixedBytes + 1<<16
	}
	for {
		b := c.Buffered()
		if len(b) > longPeek {
			TakeTurn()
		}
		h, n, err := ParseProxyHeader(b[:min(len(b), limit)])
		switch {
		case err == nil:
			c.Discard(n)
			return h, c.SetReadDeadline(time.Time{})
		case err != io.ErrUnexpectedEOF:
			return h, err
		case len(b) >= limit || proxyBytes(b) > limit:
			return h, proxyErrorf("more than %d bytes", limit)
		}
		_, err = c.Peek(max(len(b)+1, proxyBytes(b)))
		if err != nil {
			return h, proxyErrorf("%d bytes of it came: %w", len(c.Buffered()), err)
		}
	}
}

// proxyBytes is how long the header that b begins is, if b tells already, else 0.
func proxyBytes(b []byte) int {
	if len(b) < proxyV2FixedBytes || b[0] != proxyV2Signature[0] {
		return 0
	}
	return proxyV2FixedBytes + int(b[14])<<8 + int(b[15])
}

// ProxyHeaderOf returns the PROXY header that was accepted on c, or on the
// connection that c wraps, as a *tls.Conn does. It returns nil if there was none.
// The header must not be changed.
func ProxyHeaderOf(c net.Conn) *ProxyHeader {
	for c != nil {
		if conn, ok := c.(*Conn); ok {
			if h := conn.proxied(); h != nil {
				return h
			}
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = w.NetConn()
	}
	return nil
}
