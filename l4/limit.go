// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/ratelimit"
)

// A Limiter decides whether n more connections or bytes may pass now. With a yes they may
// pass after the Wait of the Decision, with a no they may be tried again after it.
// *ratelimit.Limiter and *ratelimit.Bucket are Limiters. Any number of goroutines ask at
// once.
type Limiter interface {
	Take(n int) ratelimit.Decision
}

// A ClientLimiter is a Limiter for each client address; an IPv4-mapped address is passed
// as IPv4. *ratelimit.Keyed[netip.Addr] is one. If it also has
//
//	Refund(client netip.Addr, d ratelimit.Decision)
//
// and limits connections, Refund is called when a connection is closed, provided that the
// limit is on how many are open at once: its Decision was a yes whose Reset is
// ratelimit.Never.
type ClientLimiter interface {
	Take(client netip.Addr, n int) ratelimit.Decision
}

// Limit is a handler that passes connections to Next as far as its limiters allow. A
// connection that gets a yes with a Wait waits for that long. Its fields must not change
// once it serves; it may serve any number of connections at once.
//
// Behind another proxy it goes inside [AcceptProxy], which finds the addresses of the
// clients. To leave excess connections in the backlog of the kernel, instead of accepting
// and refusing them, see [Server].MaxConns and [PacedListener].
type Limit struct {
	Next      Handler
	All       Limiter       // all connections together; nil means no limit
	PerClient ClientLimiter // those of one client; nil means no limit
	Refuse    Handler       // takes what is refused; nil is Reject{}

	// ClientBits is how many bits of an IPv6 address identify the client for
	// PerClient, since a client with one address usually has a whole network; 0
	// means 64, negative means no limit: all.
	ClientBits int

	checked
}

// ServeConn asks the limiters about c, PerClient first, so that the excess of one client
// does not use up the limit for all. A client without an IP address, as on a Unix socket,
// is the zero netip.Addr.
func (l *Limit) ServeConn(ctx context.Context, c net.Conn) error {
	if err := l.first(l); err != nil {
		return misconfigured(c, err)
	}
	conn := NewConn(c)
	var wait time.Duration
	if l.PerClient != nil {
		from, _ := addrPort(conn.RemoteAddr())
		client := clientOf(from.Addr(), l.ClientBits)
		d := l.PerClient.Take(client, 1)
		if !d.OK {
			return l.over(ctx, conn)
		}
		wait = d.Wait
		if r, ok := l.PerClient.(refunder); ok && d.Reset == ratelimit.Never {
			conn.OnClose(func() { r.Refund(client, d) })
		}
	}
	if l.All != nil {
		d := l.All.Take(1)
		if !d.OK {
			return l.over(ctx, conn)
		}
		wait = max(wait, d.Wait)
	}
	if wait > 0 {
		if err := sleep(ctx, wait); err != nil {
			return giveUp(ctx, conn, err, false)
		}
	}
	return l.Next.ServeConn(ctx, conn)
}

// clientOf returns the first address of the network of an IPv6 address that has that
// many bits: the default if 0, all if negative. An IPv4 address is itself.
func clientOf(a netip.Addr, bits int) netip.Addr {
	if bits == 0 {
		bits = 64
	}
	if bits < 0 || !a.Is6() {
		return a
	}
	p, err := a.Prefix(min(bits, 128))
	if err != nil {
		return a
	}
	return p.Addr()
}

// refunder is the optional half of a ClientLimiter.
type refunder interface {
	Refund(client netip.Addr, d ratelimit.Decision)
}

func (l *Limit) over(ctx context.Context, c *Conn) error {
	if l.Refuse != nil {
		return l.Refuse.ServeConn(ctx, c)
	}
	return Reject{}.ServeConn(ctx, c)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A PacedListener accepts connections no faster than Rate says; more wait in the backlog
// of the kernel, and are refused by it when that is full. With a Rate that never says yes
// it accepts nothing. Its fields must not change once Accept is called.
type PacedListener struct {
	net.Listener
	Rate Limiter // of connections; must not be nil

	checked
	once  sync.Once
	done  chan struct{}
	close sync.Once
}

func (l *PacedListener) init() { l.done = make(chan struct{}) }

// Accept waits until Rate allows one more connection, then for that.
func (l *PacedListener) Accept() (net.Conn, error) {
	if err := l.first(l); err != nil {
		return nil, err
	}
	l.once.Do(l.init)
	for {
		d, err := l.take()
		if err != nil {
			return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: err}
		}
		if wait := decisionWait(d); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-l.done:
				t.Stop()
				return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
			}
		}
		if d.OK {
			return l.Listener.Accept()
		}
	}
}

// take asks Rate; if that panics, Accept fails, but may be called again.
func (l *PacedListener) take() (d ratelimit.Decision, err error) {
	defer func() { err = recovered(recover(), nil, "Rate") }()
	return l.Rate.Take(1), nil
}

// Close closes the listener and ends Accept.
func (l *PacedListener) Close() error {
	l.once.Do(l.init)
	l.close.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// decisionWait is how long to wait before going on, or before asking again: a default if
// d is a no without a Wait.
func decisionWait(d ratelimit.Decision) time.Duration {
	if !d.OK && (d.Wait <= 0 || d.Wait == ratelimit.Never) {
		return 10 * time.Millisecond
	}
	return d.Wait
}
