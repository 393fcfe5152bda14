// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// A Listener is a Handler whose Accept returns the connections that it serves: it
// connects a [Router] to an http.Server or any other server that wants a net.Listener.
// What was read ahead is not lost. The zero value is ready to use, and must not be copied
// after first use.
//
// For a connection whose TLS was ended here, Accept returns the *tls.Conn itself if
// nothing was read ahead, so that an http.Server sees HTTP/2; otherwise a connection that
// has its ConnectionState.
type Listener struct {
	Address net.Addr // what Addr returns; nil means an address of network "l4"

	once  sync.Once
	queue chan net.Conn
	done  chan struct{}
	close sync.Once
}

func (l *Listener) init() {
	l.queue = make(chan net.Conn)
	l.done = make(chan struct{})
}

// ServeConn waits until Accept takes c, and then returns without closing c. If ctx ends
// or l is closed before that, c is closed.
func (l *Listener) ServeConn(ctx context.Context, c net.Conn) error {
	l.once.Do(l.init)
	var err error
	select {
	case <-l.done: // first, as both could be ready
		err = net.ErrClosed
	default:
		select {
		case l.queue <- acceptable(c):
			return nil
		case <-l.done:
			err = net.ErrClosed
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	endConn(c, Termination{Killed, PhaseRequest}, err)
	Abort(c)
	c.Close()
	return err
}

// acceptable returns c in the form that suits a server best.
func acceptable(c net.Conn) net.Conn {
	conn, ok := c.(*Conn)
	if !ok || conn.TLS() == nil {
		return c
	}
	if t, ok := conn.NetConn().(*tls.Conn); ok && len(conn.Buffered()) == 0 {
		return t
	}
	return peekedTLS{conn}
}

// peekedTLS is a *tls.Conn with bytes read ahead.
type peekedTLS struct{ *Conn }

func (c peekedTLS) ConnectionState() tls.ConnectionState { return *c.TLS() }

// Accept returns the next connection; its caller closes it. After Close it
// returns an error that matches [net.ErrClosed].
func (l *Listener) Accept() (net.Conn, error) {
	l.once.Do(l.init)
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "l4", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close ends Accept and refuses connections that wait for it. Accepted
// connections stay open.
func (l *Listener) Close() error {
	l.once.Do(l.init)
	l.close.Do(func() { close(l.done) })
	return nil
}

// Addr returns Address.
func (l *Listener) Addr() net.Addr {
	if l.Address != nil {
		return l.Address
	}
	return handedOver{}
}

// handedOver is the address of a listener that listens nowhere.
type handedOver struct{}

func (handedOver) Network() string { return "l4" }
func (handedOver) String() string  { return "l4" }
