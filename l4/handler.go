// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
)

// A Handler serves connections. It owns c and closes it, at the latest when
// it can do no more for it; it may do so after ServeConn has returned, when c
// was handed to somebody else. The connection counts as open until then.
//
// The context ends when the server that accepted c has run out of patience
// (Close, or the deadline of Shutdown); c is closed at the same time. The
// error says why the connection could not be served, for the log; peers that
// end or break a connection are no reason for one.
//
// ServeConn is called in a goroutine of its own for each connection.
type Handler interface {
	ServeConn(ctx context.Context, c net.Conn) error
}

// A HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, c net.Conn) error

// ServeConn calls f.
func (f HandlerFunc) ServeConn(ctx context.Context, c net.Conn) error { return f(ctx, c) }

// underlying returns the Conn that a server has accepted and that c is, or is
// a wrapper of: TLS and the like say what they wrap by NetConn. It returns nil
// if there is none.
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
