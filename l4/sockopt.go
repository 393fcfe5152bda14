// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// SocketOptions are the options of the sockets of a listener's connections, or of those
// to servers. The zero value sends small writes at once, as package net does, and probes
// silent peers, so that one that has vanished does not hold a connection for as long as
// the timeouts allow. On Linux probes cost almost nothing: connections inherit them from
// the listener, and those of a Proxy to its servers get them after a minute, so short
// ones do without the four system calls (1.2 us in all; a new relayed connection takes
// 80).
//
// Options marked Linux fail with errors.ErrUnsupported elsewhere, those of
// TCP are ignored for Unix sockets.
type SocketOptions struct {
	KeepAlive   net.KeepAliveConfig // probes to a silent peer; zero means after 2 min, then each 15 s, and 4 without an answer end the connection; none if Enable is false and any other field is set, as in {Idle: -1}
	UserTimeout time.Duration       // for sent data to be acknowledged, in ms; 0 means the system's (about 15 min). Linux
	Delay       bool                // hold back small writes while data is unacknowledged (Nagle)
	FastOpen    bool                // data in the SYN (RFC 7413). Linux
	Mark        uint32              // firewall mark; 0 means none. Needs CAP_NET_ADMIN. Linux
	Interface   string              // to bind to; empty means any. Linux
	Source      netip.Addr          // local address to dial from; the zero Addr means the system's choice; ignored by listeners

	// Transparent lets sockets have addresses that are not this machine's
	// (IP_TRANSPARENT). One of a Proxy, that has no Source, dials from the address of its
	// client, with a port of the system's, so that the server sees the client; the
	// server's packets must be routed back through this machine. A UDPProxy does so
	// whose Dial is the DialContext of such options. A listener takes
	// connections to any address that a TPROXY rule hands to it, which is then their
	// local one. Needs CAP_NET_ADMIN. Linux
	Transparent bool

	// Control, if not nil, is called last, before the socket is bound or
	// connected, as that of net.Dialer and net.ListenConfig.
	Control func(network, address string, c syscall.RawConn) error
}

// keepAlive is KeepAlive with the defaults applied.
func (o *SocketOptions) keepAlive() net.KeepAliveConfig {
	switch {
	case o.KeepAlive == net.KeepAliveConfig{}:
		return net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 15 * time.Second, Count: 4}
	case !o.KeepAlive.Enable:
		return net.KeepAliveConfig{}
	}
	return o.KeepAlive
}

// plain reports whether o sets no option, other than the default probes or none.
func (o *SocketOptions) plain() bool {
	return !o.KeepAlive.Enable && o.UserTimeout == 0 && !o.Delay && !o.FastOpen && o.Mark == 0 &&
		o.Interface == "" && !o.Source.IsValid() && !o.Transparent && o.Control == nil
}

// control is a Control for net.Dialer and net.ListenConfig.
func (o *SocketOptions) control(network, address string, c syscall.RawConn, listen bool) error {
	if err := onSocket(c, func(fd uintptr) error { return o.apply(fd, network, listen) }); err != nil {
		return fmt.Errorf("l4: socket option: %w", err)
	}
	if o.Control == nil {
		return nil
	}
	var err error
	if p := guard(nil, "Control", func() { err = o.Control(network, address, c) }); p != nil {
		return p // net dials two families from goroutines of its own
	}
	return err
}

// onSocket runs f with the descriptor of c.
func onSocket(c syscall.RawConn, f func(fd uintptr) error) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = f(fd) })
	return errors.Join(err, failed)
}

// DialContext connects as net.Dialer does, with the options.
func (o *SocketOptions) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, KeepAliveConfig: o.keepAlive()}
	source := o.Source
	if client, ok := DialingFor(ctx); ok && o.Transparent && !source.IsValid() {
		source = client.Remote.Addr()
	}
	switch {
	case !source.IsValid():
	case strings.HasPrefix(network, "tcp"):
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	case strings.HasPrefix(network, "udp"):
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	if !o.plain() {
		d.Control = func(network, address string, c syscall.RawConn) error {
			return o.control(network, address, c, false)
		}
	}
	c, err := d.DialContext(ctx, network, addr)
	if t, ok := c.(*net.TCPConn); ok && o.Delay {
		t.SetNoDelay(false)
	}
	return c, err
}
