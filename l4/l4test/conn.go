// SPDX-License-Identifier: Apache-2.0

package l4test

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// A Conn is one end of a connection. It is a net.Conn with the manners of TCP
// on Linux: CloseWrite sends FIN; Close with data unread, or after
// SetLinger(0), resets; after a reset the other end still reads what had
// arrived. All methods may be called at once by many goroutines.
type Conn struct {
	r, w          *stream
	local, remote net.Addr
	peer          *Conn

	mu     sync.Mutex
	closed bool
	linger bool // SetLinger(0) was called
}

// Peer returns the other end.
func (c *Conn) Peer() *Conn { return c.peer }

// Read reads what has arrived. The error is io.EOF after the peer's FIN;
// everything else is a *net.OpError as of package net.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n == 0 && err == syscall.ECONNRESET {
		c.Reset() // of the other direction too, if it was a cut
	}
	return n, c.opError("read", err)
}

// Write writes all of p, waiting while BufferBytes are unread.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err == nil {
		c.w.cutIfDue()
	}
	return n, c.opError("write", err)
}

func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// CloseWrite sends FIN: the peer reads io.EOF after what was written.
func (c *Conn) CloseWrite() error {
	var err error
	c.w.change(func() {
		switch {
		case c.w.writerClosed:
			err = net.ErrClosed
		case c.w.reset != nil:
			err = syscall.ENOTCONN
		default:
			c.w.end()
		}
	})
	return c.opError("close", err)
}

// Close closes both directions. The second call fails with net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	again, linger := c.closed, c.linger
	c.closed = true
	c.mu.Unlock()
	if again {
		return c.opError("close", net.ErrClosed)
	}
	unread := false
	c.r.change(func() { unread = c.r.size > 0 })
	if unread || linger {
		c.Reset()
	}
	c.r.change(func() { c.r.readerClosed = true; c.r.segments, c.r.size = nil, 0 })
	c.w.change(func() { c.w.end(); c.w.writerClosed = true })
	return nil
}

// SetLinger with 0 makes Close reset the connection. Other values are
// accepted and change nothing: Close never waits.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = sec == 0
	return nil
}

// LocalAddr returns this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the other end's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads; the error of a late one is
// os.ErrDeadlineExceeded. A zero t means none.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.r.setDeadline(&c.r.read, t)
	return nil
}

// SetWriteDeadline bounds writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.w.setDeadline(&c.w.write, t)
	return nil
}

// Reset breaks the connection as RST does, at once: both ends get
// syscall.ECONNRESET, after what had arrived. What was on its way is lost.
func (c *Conn) Reset() {
	c.r.change(c.r.abort)
	c.w.change(c.w.abort)
}

// Stall holds back what this end sends, including FIN, until Resume. Writes
// succeed until the buffer is full.
func (c *Conn) Stall() { c.w.change(func() { c.w.stalled = true }) }

// Resume ends what Stall began.
func (c *Conn) Resume() { c.w.change(func() { c.w.stalled = false }) }

// SetLatency makes what this end sends from now on arrive d later.
// 0 means at once. Order is kept.
func (c *Conn) SetLatency(d time.Duration) { c.w.change(func() { c.w.latency = d }) }

// CutAfter resets the connection once n more bytes of what this end sends
// have been read by the other. Of a write that goes beyond, the rest is lost
// without an error, as in a network that breaks. Negative n means never.
func (c *Conn) CutAfter(n int64) {
	c.w.change(func() { c.w.cut = max(n, -1) })
	c.w.cutIfDue()
}

// cutIfDue ends the stream with a reset if its bytes are used up.
func (s *stream) cutIfDue() {
	s.change(func() {
		if s.cut == 0 {
			s.reset = syscall.ECONNRESET
		}
	})
}
