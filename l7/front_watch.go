// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// watch makes the Parker call clientGone when the client closes its side.
func (c *byteConn) watch() {
	if c.srv.HalfClose {
		return
	}
	watched := c.watchable()
	if p := c.srv.parking.get(watched); p != nil {
		c.watched = watched
		c.srv.late.add(c)
	}
}

// watchable returns the connection that a Parker can watch: c.c, or the one below its TLS,
// on which requests and the end show as well.
func (c *byteConn) watchable() *l4.Conn {
	if t, ok := c.nc.(*tls.Conn); ok {
		if h := handedOf(t); h != nil {
			return l4.NewConn(h.Conn)
		}
	}
	return c.c
}

// watchNow is called when watchAfter has passed.
func (c *byteConn) watchNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.srv.parking.peek(); p != nil && !c.unwatched {
		p.Watch(c.watched, c.clientGone) // false means already closed
	}
}

func (c *byteConn) unwatch() {
	if c.watched == nil {
		return
	}
	c.mu.Lock()
	c.unwatched = true
	c.mu.Unlock()
	if p := c.srv.parking.peek(); p != nil {
		p.Unwatch(c.watched)
	}
	c.watched = nil
}

// watchAfter is the age at which the Parker begins to watch a connection: most
// connections for a single request do not reach it.
const watchAfter = 50 * time.Millisecond

// latecomers are new connections that will be watched if they reach that age.
type latecomers struct {
	mu    sync.Mutex
	conns []*byteConn // the place of each is in its state
	armed bool        // watch will be called
}

func (l *latecomers) add(c *byteConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.armed {
		l.armed = true
		time.AfterFunc(watchAfter, l.watch)
	}
	l.conns = append(l.conns, c)
	c.state.late = int32(len(l.conns))
}

// remove forgets a connection that has ended, so that its memory can be freed.
func (l *latecomers) remove(c *byteConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.state.late == 0 {
		return
	}
	end := len(l.conns) - 1
	last := l.conns[end]
	l.conns[c.state.late-1], last.state.late = last, c.state.late
	l.conns[end] = nil
	l.conns, c.state.late = l.conns[:end], 0
}

func (l *latecomers) watch() {
	l.mu.Lock()
	conns := l.conns
	l.conns, l.armed = nil, false
	for _, c := range conns {
		c.state.late = 0
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.watchNow()
	}
}
