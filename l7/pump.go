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
	whole      bool                  // all was sent; to be read once done is closed, as ended is
	ended      time.Time
}

func (c *upConn) startPump(t *attempt) {
	c.pump = &pump{x: t.x, c: c, limit: orDefault(t.p.BodyTimeout, defaultBodyTimeout), body: t.stream(), done: make(chan struct{})}
	go c.pump.run(&t.up.bulk)
}

func (p *pump) run(pool *l4.BufferPool) {
	defer func() {
		p.ended = time.Now()
		close(p.done)
	}()
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
	return p.c.sendBody(data, p.limit)
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
	return p.c.sendBody(append(b, "\r\n"...), p.limit)
}

// clientError returns what went wrong on the client's side, or nil.
func (p *pump) clientError() error {
	if err := p.fromClient.Load(); err != nil {
		return *err
	}
	return nil
}

// running reports whether the pump is at work, or when it ended.
func (p *pump) running() (bool, time.Time) {
	select {
	case <-p.done:
		return false, p.ended
	default:
		return true, time.Time{}
	}
}

// stopSending implements source.
func (c *upConn) stopSending(t *attempt, keep bool) bool {
	p := c.pump
	if p == nil {
		return t.whole
	}
	on, _ := p.running()
	if !on {
		return p.whole
	}
	if !keep {
		t.x.down.stopBody()
	}
	c.enough.Store(true)
	_ = c.c.SetWriteDeadline(past)
	<-p.done
	c.enough.Store(false)
	c.sendAt.at = past
	if !keep {
		t.x.down.resumeBody()
		t.stuck = true
	}
	return p.whole
}
