// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// A ListenConfig makes listeners. Their connections are net.Conns that a Server
// handles at less cost than those of package net, on Linux; everybody else
// can use them too.
type ListenConfig struct {
	Socket    SocketOptions // inherited by the connections
	ReusePort bool          // let several listeners share the address, each with its part of the connections (SO_REUSEPORT). Linux
}

// Listen listens as net.Listen does; network is "tcp", "tcp4", "tcp6" or
// "unix". Closing the listener removes the path of a Unix socket.
func (lc *ListenConfig) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	std := net.ListenConfig{KeepAlive: -1, KeepAliveConfig: lc.Socket.KeepAlive}
	std.Control = func(network, address string, c syscall.RawConn) error {
		if lc.ReusePort {
			var failed error
			if err := c.Control(func(fd uintptr) { failed = setReusePort(fd) }); err != nil || failed != nil {
				return fmt.Errorf("l4: SO_REUSEPORT: %w", errors.Join(err, failed))
			}
		}
		return lc.Socket.control(network, address, c, true)
	}
	ln, err := std.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return lighten(ln)
}
