// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"net"
	"sync"

	"github.com/penstock-lb/penstock/l4"
)

// parking is the Parker of a Server. It is started by the first connection
// that it can watch: in-memory connections it cannot, and it waits in the
// kernel, which would hold up the time of a synctest bubble.
type parking struct {
	mu     sync.Mutex
	parker *l4.Parker
	tried  bool
	run    sync.WaitGroup
}

// get returns nil where there is no Parker, or no more.
func (p *parking) get() *l4.Parker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tried {
		p.tried = true
		if parker, err := l4.NewParker(); err == nil {
			p.parker = parker
			p.run.Go(func() { _ = parker.Run() })
		}
	}
	return p.parker
}

// close ends the Parker and waits for what it has started.
func (p *parking) close() {
	p.mu.Lock()
	parker := p.parker
	p.parker, p.tried = nil, true
	p.mu.Unlock()
	if parker != nil {
		_ = parker.Close()
		p.run.Wait()
	}
}

// watch has the Parker tell when the client closes its side.
func (c *byteConn) watch() {
	if c.srv.HalfClose {
		return
	}
	nc, watched := c.nc, c.c
	if t, ok := nc.(*tls.Conn); ok {
		// The end of the stream below shows just the same; nothing is read.
		if h := handedOf(t); h != nil {
			nc = h.Conn
		}
		watched = l4.NewConn(nc)
	}
	if _, ok := nc.(*net.TCPConn); !ok {
		return
	}
	if p := c.srv.parking.get(); p != nil && p.Watch(watched, c.clientGone) {
		c.watched = watched
	}
}

func (c *byteConn) unwatch() {
	if c.watched == nil {
		return
	}
	if p := c.srv.parking.get(); p != nil {
		p.Unwatch(c.watched)
	}
	c.watched = nil
}
