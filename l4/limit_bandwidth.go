// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/ratelimit"
)

// A Throttle is a handler that bounds the bandwidth of its connections:
//
//	&l4.Throttle{
//		Out:  l4.Bandwidth{All: &ratelimit.Limiter{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(100 << 20)}}},
//		Next: proxy,
//	}
//
// Its data moves through user space, without splice. It may serve any number of
// connections at once; its fields must not change once it serves.
type Throttle struct {
	Next Handler
	In   Bandwidth // what clients send
	Out  Bandwidth // what clients are sent

	checked
}

// Bandwidth has limits in bytes, all of which apply. The zero value has none. Where a
// limiter refuses, the connection waits as long as its Decision says. Bursts of less than
// 16 KiB cause smaller writes, which cost more.
type Bandwidth struct {
	All       Limiter                         // of all connections together; nil means none
	PerClient ClientLimiter                   // of the connections of one client; nil means none
	PerConn   func(client netip.Addr) Limiter // makes that of one connection; nil, or a nil result, means none

	ClientBits int // of an IPv6 address that PerClient is asked about; 0 means 64, negative means no limit: all
}

// paces is b for one connection.
func (b *Bandwidth) paces(client netip.Addr) (out []pace) {
	if b.PerConn != nil {
		if l := b.PerConn(client); l != nil {
			out = append(out, pace{take: l.Take})
		}
	}
	if b.PerClient != nil {
		client := clientOf(client, b.ClientBits)
		out = append(out, pace{take: func(n int) ratelimit.Decision { return b.PerClient.Take(client, n) }})
	}
	if b.All != nil {
		out = append(out, pace{take: b.All.Take})
	}
	return out
}

// ServeConn has Next serve c at no more than the bandwidth.
func (t *Throttle) ServeConn(ctx context.Context, c net.Conn) error {
	if err := t.first(t); err != nil {
		return misconfigured(c, err)
	}
	conn := NewConn(c)
	client, _ := addrPort(conn.RemoteAddr())
	in, out := t.In.paces(client.Addr()), t.Out.paces(client.Addr())
	if len(in)+len(out) == 0 {
		return t.Next.ServeConn(ctx, conn)
	}
	slow := &throttled{Conn: conn, in: in, out: out, done: make(chan struct{})}
	if conn.TLS() != nil {
		return t.Next.ServeConn(ctx, NewConn(throttledTLS{slow}))
	}
	return t.Next.ServeConn(ctx, NewConn(slow))
}

// throttleStep is the most that is moved, or asked for, at once.
const throttleStep = 16 << 10

// A throttled is a connection that waits for its limiters: before it writes, and
// after it has read, in the next read, so that a deadline loses no bytes.
type throttled struct {
	*Conn
	in, out     []pace
	read, write wakeup
	done        chan struct{} // closed by Close
	once        sync.Once
}

// throttledTLS has the TLS state of the connection inside.
type throttledTLS struct{ *throttled }

func (c throttledTLS) ConnectionState() tls.ConnectionState { return *c.TLS() }

func (c *throttled) NetConn() net.Conn { return c.Conn }

func (c *throttled) Read(p []byte) (int, error) {
	if err := c.pay(c.in, &c.read, 0); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p[:min(len(p), throttleStep)])
	for i := range c.in {
		c.in[i].debt += n
	}
	return n, err
}

func (c *throttled) Write(p []byte) (n int, err error) {
	for {
		chunk := p[n:min(len(p), n+throttleStep)]
		if err := c.pay(c.out, &c.write, len(chunk)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(chunk)
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// ReadFrom and WriteTo hide those of Conn, which ignore the limits.
func (c *throttled) ReadFrom(r io.Reader) (int64, error) { return io.Copy(onlyWriter{c}, r) }
func (c *throttled) WriteTo(w io.Writer) (int64, error)  { return io.Copy(w, onlyReader{c}) }

func (c *throttled) pay(paces []pace, w *wakeup, n int) error {
	for i := range paces {
		paces[i].debt += n
	}
	for i := range paces {
		if err := paces[i].pay(w, c.done); err != nil {
			for i := range paces {
				paces[i].debt = max(0, paces[i].debt-n) // it was not moved
			}
			return err
		}
	}
	return nil
}

func (c *throttled) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

func (c *throttled) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return c.Conn.SetDeadline(t)
}

func (c *throttled) SetReadDeadline(t time.Time) error {
	c.read.set(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *throttled) SetWriteDeadline(t time.Time) error {
	c.write.set(t)
	return c.Conn.SetWriteDeadline(t)
}

// A pace is one limiter of one direction of one connection.
type pace struct {
	take  func(n int) ratelimit.Decision
	debt  int       // bytes not yet taken
	until time.Time // when what was taken may pass, or is worth asking for again
}

// pay takes the debt, waiting as the limiter says.
func (p *pace) pay(w *wakeup, done <-chan struct{}) error {
	step := throttleStep
	for p.debt > 0 || !p.until.IsZero() {
		if !p.until.IsZero() {
			if err := w.sleep(p.until, done); err != nil {
				return err
			}
			p.until = time.Time{}
			continue
		}
		d := p.take(min(p.debt, step))
		switch {
		case d.OK:
			p.debt -= min(p.debt, step)
		case d.Wait == ratelimit.Never && step > 1:
			step /= 2 // more than may ever pass at once
			continue
		}
		if wait := decisionWait(d); wait > 0 {
			p.until = time.Now().Add(wait)
		}
	}
	return nil
}

// A wakeup is a deadline that sleepers obey when it changes, too.
type wakeup struct {
	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed by the next set; nil if no goroutine sleeps
}

func (w *wakeup) set(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// sleep waits until t, the deadline, or done.
func (w *wakeup) sleep(t time.Time, done <-chan struct{}) error {
	for {
		w.mu.Lock()
		deadline := w.deadline
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		now := time.Now()
		if !deadline.IsZero() && !now.Before(deadline) {
			return os.ErrDeadlineExceeded
		}
		if !now.Before(t) {
			return nil
		}
		end := t
		if !deadline.IsZero() && deadline.Before(t) {
			end = deadline
		}
		timer := time.NewTimer(end.Sub(now))
		select {
		case <-timer.C:
		case <-changed:
		case <-done:
			timer.Stop()
			return net.ErrClosed
		}
		timer.Stop()
	}
}
