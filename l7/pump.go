// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A pump sends a request body to a server while the reply is waited for, so
// that a server may reply before it has read all of it.
type pump struct {
	x     *Exchange
	c     *upConn
	limit time.Duration
	body  io.Reader
	done  chan struct{}

	fromClient atomic.Pointer[error] // what ended it, if that was the client
	whole      bool                  // all was sent; to be read once done is closed
}

func (t *attempt) startPump(c *upConn) *pump {
	t.streamed = true
	p := &pump{x: t.x, c: c, limit: orDefault(t.p.BodyTimeout, defaultBodyTimeout), body: t.x.Body(), done: make(chan struct{})}
	go p.run(&t.up.bulk)
	return p
}

func (p *pump) run(pool *l4.BufferPool) {
	defer close(p.done)
	b := pool.Get()
	defer pool.Put(b)
	buf := b.B[:cap(b.B)]
	left := p.x.ContentLength
	for {
		room := buf[chunkRoomBefore : len(buf)-chunkRoomAfter]
		if left >= 0 && int64(len(room)) > left {
			room = room[:left]
		}
		n, err := 0, error(io.EOF)
		if left != 0 {
			n, err = p.body.Read(room)
		}
		if n > 0 {
			if p.send(buf, n, left < 0) != nil {
				return // the server's side says why
			}
			if left > 0 {
				left -= int64(n)
			}
		}
		switch {
		case err == io.EOF && left <= 0:
			p.whole = p.finish() == nil
			return
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		case err == nil:
			continue
		}
		if !errors.Is(err, errStopped) {
			p.fromClient.Store(&err)
			p.c.interruptBody()
		}
		return
	}
}

// send writes n bytes that stand in buf behind the room for a chunk line.
func (p *pump) send(buf []byte, n int, chunked bool) error {
	data := buf[chunkRoomBefore : chunkRoomBefore+n]
	if chunked {
		var line [chunkRoomBefore]byte
		size := appendChunkSize(line[:0], n)
		start := chunkRoomBefore - len(size)
		copy(buf[start:], size)
		copy(buf[chunkRoomBefore+n:], "\r\n")
		data = buf[start : chunkRoomBefore+n+chunkRoomAfter]
	}
	return p.c.send(data, time.Now(), p.limit)
}

// finish ends a chunked body, with its trailer.
func (p *pump) finish() error {
	if p.x.ContentLength >= 0 {
		return nil
	}
	b := []byte("0\r\n")
	if f := p.x.down.trailer(); f != nil {
		b = appendFields(b, f)
	}
	return p.c.send(append(b, "\r\n"...), time.Now(), p.limit)
}

// clientError returns what went wrong on the client's side, or nil.
func (p *pump) clientError() error {
	if err := p.fromClient.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends the pump, if there is one, and reports whether the whole body has
// been sent.
func (p *pump) stop(x *Exchange) bool {
	if p == nil {
		return true
	}
	select {
	case <-p.done:
		return p.whole
	default:
	}
	x.down.stopBody()
	p.c.enough.Store(true)
	_ = p.c.c.SetWriteDeadline(past)
	<-p.done
	p.c.enough.Store(false)
	p.c.sendAt.at = past
	x.down.resumeBody()
	return p.whole
}
