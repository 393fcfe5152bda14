// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Attach is for servers that cannot be reached, and connect to us instead: a
// Handler for the connections they make, which wait there to be given work,
// and the DialFunc that gives it.
//
//	home := new(l4.Attach)
//	attach := &l4.Server{Handler: home} // where the servers connect to
//	proxy := &l4.Proxy{Pool: pool, Dial: home.DialContext}
//
// Each connection serves one client, so a server keeps a few waiting and makes
// another when one is taken. The handlers before it decide which servers may
// connect: by client certificates or prefixes. If servers are not
// interchangeable, each has an Attach, and the host's DialFunc chooses by the
// address.
//
// The zero value is ready to be used, and must not be copied then. All methods
// may be called at once.
type Attach struct {
	Max int // connections that wait at once; more are reset; 0 means 1024, negative means none

	once    sync.Once
	offers  chan chan *Conn
	waiting atomic.Int64
}

func (a *Attach) init() { a.offers = make(chan chan *Conn) }

// ServeConn has c wait until it is taken, and returns then; c lives on. It
// closes c if its peer leaves or the server begins to shut down, and resets it if
// ctx ends.
func (a *Attach) ServeConn(ctx context.Context, c net.Conn) error {
	a.once.Do(a.init)
	conn := NewConn(c)
	if a.waiting.Add(1) > int64(cmp.Or(a.Max, 1024)) {
		a.waiting.Add(-1)
		return Reject{}.ServeConn(ctx, conn)
	}
	heard := make(chan error, 1) // what came of listening to the peer
	go func() {
		_, err := conn.Peek(len(conn.Buffered()) + 1)
		heard <- err
	}()
	give := make(chan *Conn)
	for {
		select {
		case a.offers <- give:
			a.waiting.Add(-1)
			if err := hush(conn, heard); err != nil {
				give <- nil
				return giveUp(ctx, conn, err, true)
			}
			give <- conn
			return nil
		case err := <-heard:
			if err != nil {
				a.waiting.Add(-1)
				return giveUp(ctx, conn, err, true)
			}
			heard = nil // it speaks first; its end is found by whoever takes it
			continue
		case <-ctx.Done():
		case <-Draining(ctx):
		}
		a.waiting.Add(-1)
		endConn(conn, Termination{Killed, PhaseQueue}, ErrServerClosed)
		defer hush(conn, heard)
		if ctx.Err() != nil {
			Abort(conn)
		}
		return conn.Close()
	}
}

// hush ends the watch of c, if there is one, and reports whether the peer has
// left.
func hush(c *Conn, heard <-chan error) error {
	if heard == nil {
		return nil
	}
	c.SetReadDeadline(time.Unix(1, 0))
	if err := <-heard; err != nil && !isTimeout(err) {
		return err
	}
	return c.SetReadDeadline(time.Time{})
}

// DialContext takes the connection of a server that waits, or waits for one
// until ctx ends. The network and address are ignored.
func (a *Attach) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	a.once.Do(a.init)
	for {
		select {
		case give := <-a.offers:
			if c := <-give; c != nil {
				return c, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("l4: no server has connected: %w", context.Cause(ctx))
		}
	}
}

// Waiting returns how many connections wait.
func (a *Attach) Waiting() int { return int(a.waiting.Load()) }
