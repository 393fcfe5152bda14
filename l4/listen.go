// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// A ListenConfig makes listeners. On Linux their connections cost a Server less than
// those of package net. They are net.Conns, so other code can use them too.
type ListenConfig struct {
	Socket    SocketOptions // inherited by the connections
	ReusePort bool          // let several listeners share the address, each with its part of the connections (SO_REUSEPORT). Linux

	// DeferAccept is for protocols in which the client speaks first: a connection is
	// accepted when it has something to read, or after about this long without
	// (TCP_DEFER_ACCEPT). That saves the wait for its first bytes, which is most of the
	// overhead of a short connection. Until then only the kernel has the connection: it
	// counts toward no limit, and closing the listener drops it. In whole seconds,
	// rounded up; 0 or negative means none: at once. On Linux for TCP; elsewhere it does
	// nothing.
	DeferAccept time.Duration
}

// Listen listens as net.Listen does; network is "tcp", "tcp4", "tcp6" or
// "unix". Closing the listener removes the path of a Unix socket.
func (lc *ListenConfig) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	if err := lc.Check(); err != nil {
		return nil, err
	}
	std := net.ListenConfig{KeepAlive: -1, KeepAliveConfig: lc.Socket.keepAlive()}
	std.Control = func(network, address string, c syscall.RawConn) error {
		if err := onSocket(c, func(fd uintptr) error { return lc.apply(fd, network) }); err != nil {
			return fmt.Errorf("l4: listen: %w", err)
		}
		return lc.Socket.control(network, address, c, true)
	}
	ln, err := std.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return lighten(ln)
}

// apply sets the options that only listeners have.
func (lc *ListenConfig) apply(fd uintptr, network string) error {
	if lc.ReusePort {
		if err := setReusePort(fd); err != nil {
			return fmt.Errorf("SO_REUSEPORT: %w", err)
		}
	}
	if lc.DeferAccept > 0 && strings.HasPrefix(network, "tcp") {
		if err := setDeferAccept(fd, lc.DeferAccept); err != nil {
			return fmt.Errorf("TCP_DEFER_ACCEPT: %w", err)
		}
	}
	return nil
}
