// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A sharedPacketConn is a socket of datagrams that another process may read one day.
type sharedPacketConn struct {
	udp    *net.UDPConn
	handed atomic.Bool // another process reads; set under mu
	once   sync.Once
	closed chan struct{}

	mu    sync.Mutex
	reads int           // in progress
	quiet chan struct{} // closed when the last of them returns; nil unless handOff waits for that
}

func newSharedPacketConn(c *net.UDPConn) *sharedPacketConn {
	return &sharedPacketConn{udp: c, closed: make(chan struct{})}
}

// handOff has reads return nothing more. It waits for those in progress, of which each
// may still take a datagram that has woken it up.
func (c *sharedPacketConn) handOff() {
	c.mu.Lock()
	c.handed.Store(true)
	if c.quiet = make(chan struct{}); c.reads == 0 {
		close(c.quiet)
	}
	c.mu.Unlock()
	_ = c.udp.SetReadDeadline(time.Unix(1, 0))
	<-c.quiet
}

// begin counts a read. It is false if another process reads.
func (c *sharedPacketConn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handed.Load() {
		return false
	}
	c.reads++
	return true
}

func (c *sharedPacketConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads--; c.reads == 0 && c.quiet != nil {
		close(c.quiet)
	}
}

// ReadFromUDPAddrPort is that of [net.UDPConn].
func (c *sharedPacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	if c.begin() {
		n, from, err := c.udp.ReadFromUDPAddrPort(b)
		c.end()
		if err == nil || !c.handed.Load() {
			return n, from, err
		}
	}
	<-c.closed
	return 0, netip.AddrPort{}, &net.OpError{Op: "read", Net: c.udp.LocalAddr().Network(), Source: c.udp.LocalAddr(), Err: net.ErrClosed}
}

// ReadFrom is that of [net.PacketConn].
func (c *sharedPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteToUDPAddrPort is that of [net.UDPConn].
func (c *sharedPacketConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.udp.WriteToUDPAddrPort(b, to)
}

func (c *sharedPacketConn) WriteTo(b []byte, to net.Addr) (int, error) { return c.udp.WriteTo(b, to) }
func (c *sharedPacketConn) LocalAddr() net.Addr                        { return c.udp.LocalAddr() }
func (c *sharedPacketConn) SyscallConn() (syscall.RawConn, error)      { return c.udp.SyscallConn() }
func (c *sharedPacketConn) SetReadBuffer(bytes int) error              { return c.udp.SetReadBuffer(bytes) }
func (c *sharedPacketConn) SetWriteBuffer(bytes int) error             { return c.udp.SetWriteBuffer(bytes) }
func (c *sharedPacketConn) SetWriteDeadline(t time.Time) error         { return c.udp.SetWriteDeadline(t) }

func (c *sharedPacketConn) SetDeadline(t time.Time) error {
	if err := c.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

func (c *sharedPacketConn) SetReadDeadline(t time.Time) error {
	err := c.udp.SetReadDeadline(t)
	if c.handed.Load() {
		_ = c.udp.SetReadDeadline(time.Unix(1, 0))
	}
	return err
}

// Close closes the socket here.
func (c *sharedPacketConn) Close() error {
	err := c.udp.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}
