// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A Dialer is a pool as a DialContext: balancing on the client's side, for
// database drivers, Redis clients, an http.Transport and whatever else takes
// such a function. Its fields must not change once it is used; DialContext may
// be called at once by many goroutines.
//
// A connection holds its lease until it is closed, so that limits and
// least-connections mean connections.
type Dialer struct {
	Pool *balance.Pool

	Dial   DialFunc      // nil means sockets with the options of Socket
	Socket SocketOptions // unless Dial makes the connections

	// Key returns the hash key of a dial for policies that hash. Nil means none.
	Key func(ctx context.Context, network, addr string) uint64

	ConnectTimeout time.Duration // of one try; 0 means 3s, negative means none
	Tries          int           // how many servers are tried; 0 means 3, negative means none but the first

	CutOnDown bool // close connections of a server that goes down, into maintenance, or leaves the pool

	checked
}

// DialContext connects to a server of the pool, waiting in its queue if need
// be, and trying others if that fails. The network and address are ignored,
// but for Key: they are what the driver was configured with.
//
// The error wraps those of the pool (balance.ErrNoServer and so on), the *ServerError of
// each try, and the context's cause. A panic of Dial is logged to slog.Default and
// returned as an error.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := d.first(d); err != nil {
		return nil, err
	}
	var req balance.Request
	if d.Key != nil {
		req.Key = d.Key(ctx, network, addr)
	}
	var failed error
	for try := 1; ; try++ {
		lease, err := d.Pool.Acquire(ctx, req)
		if err != nil {
			return nil, errors.Join(failed, noLease(d.Pool, err))
		}
		server := lease.Server()
		before := time.Now()
		c, err := d.connect(ctx, server)
		if err == nil {
			c.lease, c.took = lease, time.Since(before)
			return c, nil
		}
		class, _ := whyNot(ctx, err)
		lease.Done(balance.Outcome{Class: class, Err: err})
		failed = errors.Join(failed, &ServerError{Server: server.Name(), Addr: server.Addr(), Err: err})
		if try >= tries(d.Tries) || ctx.Err() != nil || panicked(err) {
			return nil, failed
		}
		if class != balance.ConnectFailed && !isCut(err) { // as in Proxy
			retry, ok := d.Pool.TryRetry()
			if !ok {
				return nil, failed
			}
			defer retry.Done()
		}
		req.Avoid(server)
	}
}

// connect connects to a server, unless that is cut meanwhile. The connection that it
// returns is attached to the server.
func (d *Dialer) connect(ctx context.Context, server *balance.Server) (l *leased, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l = &leased{cutOnDown: d.CutOnDown, cancel: cancel}
	server.Attach(l)
	ok := false // neither by an error nor by a panic
	defer func() {
		if !ok {
			server.Detach(l)
		}
	}()
	c, err := d.dial(ctx, server)
	if err != nil {
		if cut, ok := errors.AsType[*cutError](context.Cause(ctx)); ok {
			err = cut
		}
		return nil, err
	}
	if err = l.connected(c); err != nil {
		c.Close()
		return nil, err
	}
	ok = true
	return l, nil
}

func (d *Dialer) dial(ctx context.Context, server *balance.Server) (c net.Conn, err error) {
	defer func() {
		if p := recovered(recover(), nil, "Dial", "server", server.Name()); p != nil {
			err = p
		}
	}()
	ctx, done := boundConnect(ctx, connectTimeout(d.ConnectTimeout))
	defer done(&err)
	network, addr := SplitAddr(server.Addr())
	if d.Dial != nil {
		c, err = d.Dial(ctx, network, addr)
		return balance.Dialed("l4: Dialer.Dial", c, err)
	}
	return d.Socket.DialContext(ctx, network, addr)
}

// A leased connection ends its lease when it is closed.
type leased struct {
	net.Conn
	lease     balance.Lease
	took      time.Duration // to connect
	cutOnDown bool
	broken    atomic.Pointer[error] // the first that says that the server broke the connection
	closed    atomic.Bool

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of connecting; nil once there is a connection
	lost   *cutError               // the server was taken away meanwhile; nil if it was not
}

// connected gives l its connection, unless the server is lost.
func (c *leased) connected(nc net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return c.lost
	}
	c.Conn, c.cancel = nc, nil
	return nil
}

func (c *leased) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.lease.Works(0)
	}
	c.note(err)
	return n, err
}

func (c *leased) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.note(err)
	return n, err
}

func (c *leased) note(err error) {
	if err == nil || err == io.EOF || c.closed.Load() || isTimeout(err) {
		return
	}
	c.broken.CompareAndSwap(nil, &err)
}

// Close closes the connection and ends the lease.
func (c *leased) Close() error {
	if c.closed.Swap(true) {
		return c.Conn.Close()
	}
	server := c.lease.Server()
	server.Detach(c)
	outcome := balance.Outcome{Latency: c.took}
	if broken := c.broken.Load(); broken != nil {
		outcome.Class, outcome.Err = balance.Reset, *broken
	}
	defer c.lease.Done(outcome)
	return c.Conn.Close()
}

// CloseWrite ends the stream to the server, if the connection can.
func (c *leased) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection without its lease.
func (c *leased) NetConn() net.Conn { return c.Conn }

// Cut is called by the pool when the server is to lose its connections; see
// balance.Attached. The lease still lasts until the owner closes the connection.
func (c *leased) Cut(live bool, reason string) {
	if !live && !c.cutOnDown {
		return
	}
	err := &cutError{reason}
	c.mu.Lock()
	nc, cancel := c.Conn, c.cancel
	if cancel != nil {
		c.lost = err
	}
	c.mu.Unlock()
	switch {
	case cancel != nil:
		cancel(err)
	case nc != nil:
		nc.Close()
	}
}
