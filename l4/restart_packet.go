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
	handed atomic.Bool // another process reads
	once   sync.Once
	closed chan struct{}
}

func newSharedPacketConn(c *net.UDPConn) *sharedPacketConn {
	return &sharedPacketConn{udp: c, closed: make(chan struct{})}
}

// handOff has reads return nothing more, but for one that a datagram is waking up.
func (c *sharedPacketConn) handOff() {
	c.handed.Store(true)
	_ = c.udp.SetReadDeadline(time.Unix(1, 0))
}

// ReadFromUDPAddrPort is that of [net.UDPConn].
func (c *sharedPacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	if !c.handed.Load() {
		n, from, err := c.udp.ReadFromUDPAddrPort(b)
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
