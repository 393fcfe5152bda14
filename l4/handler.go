// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
)

// A Handler serves connections. It owns c and must close it when it is done. That may be
// after ServeConn has returned, if it has passed c on. The connection counts as open
// until it is closed.
//
// The context ends when the server that accepted c is closed (by Close, or at the
// deadline of Shutdown); c is closed at the same time. The error says why the connection
// could not be served, for the log. A peer that ends or breaks the connection is not an
// error.
//
// ServeConn is called in a goroutine of its own for each connection.
type Handler interface {
	ServeConn(ctx context.Context, c net.Conn) error
}

// A HandlerFunc is a function that is a Handler: it owns c, and must close it or pass it on.
type HandlerFunc func(ctx context.Context, c net.Conn) error

// ServeConn calls f.
func (f HandlerFunc) ServeConn(ctx context.Context, c net.Conn) error { return f(ctx, c) }

// underlying returns the Conn of a server that c is or wraps, as the NetConn methods of
// wrappers such as TLS say. It returns nil if there is none.
func underlying(c net.Conn) *Conn {
	for c != nil {
		if conn, ok := c.(*Conn); ok && conn.member.server != nil {
			return conn
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = w.NetConn()
	}
	return nil
}
