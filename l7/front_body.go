// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// reqBody is the body of the current request, as it comes from the client.
type reqBody struct {
	head    string // the request's head as it came
	left    int64  // bytes not yet read, -1 if chunked
	chunk   chunkDecoder
	read    int64
	touched bool  // some of it has been read
	awaited bool  // it did not all come with the head
	failed  bool  // it cannot be read to its end
	err     error // why, if reading it has failed
	fields  *Fields
}

// ended reports whether the whole body has been read.
func (b *reqBody) ended() bool {
	return b.left == 0 || b.left < 0 && b.chunk.state == chunkDone
}

// errStopped is the error of reading a body whose rest is not needed.
var errStopped = errors.New("l7: the rest of the body is not needed")

func (c *byteConn) bodyReady() bool {
	b := &c.req
	return b.left == 0 || b.left > 0 && int64(len(c.in.bytes())) >= b.left
}

func (c *byteConn) bodyMayPanic() bool { return false }
func (c *byteConn) rewindBody() bool   { return false }
func (c *byteConn) rewindable() bool   { return false }

func (c *byteConn) trailer() *Fields { return c.req.fields }

// goOn implements downstream.
func (c *byteConn) goOn() error {
	if !c.x.expect || c.rep.begun {
		return nil
	}
	c.x.expect = false
	return c.send([]byte("HTTP/1.1 100 Continue\r\n\r\n"), false)
}

// readBody reads the body that the client sends, without its framing.
func (c *byteConn) readBody(p []byte) (int, error) {
	b := &c.req
	if b.ended() {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.failed {
		return 0, cmp.Or(b.err, errStopped)
	}
	if err := c.goOn(); err != nil {
		return 0, err
	}
	b.touched = true
	var n int
	var err error
	if b.left > 0 {
		n, err = c.readFixed(p)
	} else {
		n, err = c.readChunked(p)
	}
	b.read += int64(n)
	if c.x.down == downstream(c) { // otherwise any goroutine may be reading
		c.x.Record.BytesIn = b.read
	}
	if limit := c.srv.MaxBodyBytes; limit > 0 && b.read > limit {
		err = &headError{http.StatusRequestEntityTooLarge, "body too long"}
	}
	if err != nil {
		if !c.stopped.Load() && !c.gone.Load() && !c.own.read.stands() {
			err = c.srv.lateClient(&c.x, err)
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		b.failed, b.err = true, err
		return n, err
	}
	if b.ended() {
		c.startPeek()
	}
	return n, nil
}

func (c *byteConn) readFixed(p []byte) (n int, err error) {
	if int64(len(p)) > c.req.left {
		p = p[:c.req.left]
	}
	if !c.in.empty() {
		n = copy(p, c.in.bytes())
		c.in.use(n)
		c.consumed()
	} else {
		if err = c.awaitBody(); err == nil {
			n, err = c.c.Read(p)
		}
	}
	if c.req.left -= int64(n); n > 0 {
		err = nil // the next read returns it again
	}
	return n, err
}

// readChunked reads what has come of the body, so that a client's chunks of one byte do
// not make as many writes to the server. It waits only if that is nothing.
func (c *byteConn) readChunked(p []byte) (n int, err error) {
	d := &c.req.chunk
	for chunks := 1; n < len(p); chunks++ {
		if c.in.empty() {
			if n > 0 {
				return n, nil
			}
			if err := c.awaitBody(); err != nil {
				return 0, err
			}
			if err := c.in.fill(c.c, &c.srv.buffers); err != nil {
				return 0, err
			}
		}
		if chunks%tinyChunks == 0 {
			l4.TakeTurn()
		}
		src := c.in.bytes()
		data, used, err := d.decode(src[:min(len(src), len(p)-n)])
		n += copy(p[n:], data)
		c.in.use(used)
		c.consumed()
		if err != nil {
			return n, err
		}
		if d.state == chunkDone {
			f, err := d.fields(orDefault(c.srv.MaxFields, defaultMaxFields))
			if c.req.fields = f; err != nil {
				return n, err
			}
			return n, nil
		}
	}
	return n, nil
}

// tinyChunks is how many chunks may be in one buffer before the rest waits for a turn.
const tinyChunks = 256

// awaitBody bounds the next wait for a piece of the body.
func (c *byteConn) awaitBody() error {
	if !c.req.awaited {
		c.req.awaited = true
		c.c.AckNow()
	}
	c.readAt.bound(time.Now(), c.srv.requestLimit(&c.x), c.c.SetReadDeadline, c.bodyInstead)
	if c.stopped.Load() {
		return errStopped
	}
	return nil
}

func (c *byteConn) bodyInstead() (time.Time, bool) {
	if c.stopped.Load() {
		return past, true
	}
	return c.own.read.get()
}

// endLoan ends reads of the bodies of [Exchange.Request]. The end of the reply
// depends on how far the body has been read, and the goroutine of an http.Transport
// may still be reading.
func (c *byteConn) endLoan() {
	if l := c.x.lent; l != nil {
		l.takeBack(c.stopBody)
		c.resumeBody()
	}
}

func (c *byteConn) stopBody() {
	c.stopped.Store(true)
	if quietly(c.srv.logger(), func() { _ = c.c.SetReadDeadline(past) }) != nil {
		c.shut()
	}
}

func (c *byteConn) pauseBody(on bool) bool {
	if on {
		c.stopBody()
		return true
	}
	if c.stopped.Swap(false) {
		c.readAt.forget()
		if b := &c.req; b.failed && (errors.Is(b.err, os.ErrDeadlineExceeded) || errors.Is(b.err, errStopped)) {
			b.failed, b.err = false, nil // nothing was read, so that nothing is lost
		}
	}
	return true
}

func (c *byteConn) resumeBody() {
	if c.stopped.Swap(false) {
		c.readAt.forget()
		if !c.gone.Load() {
			// A body that has not been touched can still be drained: the pump was
			// reading one that a handler has set in its place, or had just ended.
			c.req.failed = c.req.failed || c.req.touched && !c.req.ended()
		}
	}
}
