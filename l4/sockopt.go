// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// SocketOptions are the options of the sockets of a listener's connections,
// or of those to servers. The zero value sends small writes at once, as
// package net does, and probes peers that are silent, so that one that is gone
// without a word does not hold a connection for as long as the timeouts allow.
// On Linux probes cost next to nothing: connections inherit them from the
// listener, and those of a Proxy to its servers get them after a minute, so that
// short ones are spared the four system calls (1.2 us in all, where a new relayed
// connection takes 80).
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

	// Control, if not nil, is called last, before the socket is bound or
	// connected, as that of net.Dialer and net.ListenConfig.
	Control func(network, address string, c syscall.RawConn) error
}

// keepAlive is KeepAlive with what zero means.
func (o *SocketOptions) keepAlive() net.KeepAliveConfig {
	switch {
	case o.KeepAlive == net.KeepAliveConfig{}:
		return net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 15 * time.Second, Count: 4}
	case !o.KeepAlive.Enable:
		return net.KeepAliveConfig{}
	}
	return o.KeepAlive
}

// plain reports whether o asks for nothing, but for the probes of zero or none.
func (o *SocketOptions) plain() bool {
	return !o.KeepAlive.Enable && o.UserTimeout == 0 && !o.Delay && !o.FastOpen && o.Mark == 0 &&
		o.Interface == "" && !o.Source.IsValid() && o.Control == nil
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
	if o.Source.IsValid() && network != "unix" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))
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
