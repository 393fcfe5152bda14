// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"os"
	"time"
)

// peekAfter is how long an exchange on a connection without a Parker runs
// before a peek checks for the client.
const peekAfter = 50 * time.Millisecond

// A peek reads ahead from a client, while no other goroutine reads, to detect
// that it has disconnected. It replaces the Parker on other systems and for
// in-memory connections.
type peek struct {
	timer *time.Timer
	done  chan struct{} // closed when the read ends; nil if it has not begun; guarded by mu of the connection
	over  bool          // it must not begin any more; guarded likewise
}

// beginPeek arms a peek for an exchange that begins.
func (c *byteConn) beginPeek() {
	c.unpeeked = false
	c.startPeek()
}

// startPeek arms a peek if one is needed and possible. It is called at the
// beginning of an exchange or, by the reader of the request body, at the end of
// that.
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

// stopPeek ends the peek, so that the connection can be read again. No other
// begins in this exchange.
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
