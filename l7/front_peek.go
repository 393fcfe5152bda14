// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"os"
	"time"
)

// peekAfter is how long an exchange on a connection that no Parker watches
// takes before the client is looked after.
const peekAfter = 50 * time.Millisecond

// A peek reads ahead from a client, while nobody else reads, to learn that it
// has gone. It is what stands in for the Parker on other systems and for
// connections in memory.
type peek struct {
	timer *time.Timer
	done  chan struct{} // closed at the end of the read; nil if it has not begun. Guarded by mu of the connection
	over  bool          // it must not begin any more; likewise
}

// peeking is the peek of a connection, and whether there may be one.
type peeking struct {
	peek     *peek // instead of the Parker; nil if there is none
	unpeeked bool  // none is to begin any more, until the next exchange does
}

// beginPeek arms a peek for an exchange that begins.
func (c *byteConn) beginPeek() {
	c.unpeeked = false
	c.startPeek()
}

// startPeek arms a peek if one is needed, and possible: now or, by whoever has
// read the request body, behind its end.
func (c *byteConn) startPeek() {
	if c.watched != nil || c.unpeeked || c.peek != nil || c.srv.HalfClose || !c.in.empty() || !c.req.ended() {
		return
	}
	p := new(peek)
	c.peek = p
	p.timer = time.AfterFunc(peekAfter, func() {
		c.mu.Lock()
		if p.over {
			c.mu.Unlock()
			return
		}
		p.done = make(chan struct{})
		c.mu.Unlock()
		defer close(p.done)
		var err error
		if panicked := quietly(c.srv.logger(), func() { _, err = c.c.Peek(1) }); panicked != nil {
			err = panicked
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.clientGone()
		}
	})
}

// stopPeek ends it, so that the connection can be read again. There is none
// any more in this exchange.
func (c *byteConn) stopPeek() {
	c.unpeeked = true
	p := c.peek
	if p == nil {
		return
	}
	c.peek = nil
	c.mu.Lock()
	p.over = true
	c.mu.Unlock()
	p.timer.Stop()
	if p.done != nil {
		_ = c.c.SetReadDeadline(past)
		<-p.done
		c.readAt.forget()
	}
}
