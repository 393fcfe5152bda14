// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
)

// A Handler serves connections. It owns c and must close it when it is done,
// which may be after ServeConn has returned if it has passed c on. The
// connection counts as open until then.
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
