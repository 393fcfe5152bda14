// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// A pump sends a request body to a server while the exchange waits for the
// reply, so that a server may reply before it has read the whole body.
type pump struct {
	x     *Exchange
	to    bodySink
	limit time.Duration
	toEnd bool // read a body of known length until its EOF
	body  io.Reader
	trace *tracer // nil if no program looks
	done  chan struct{}
	begun time.Time
	moved atomic.Int64 // the time since begun at which the server last took a part
	stuck atomic.Bool  // the server takes no more of the body

	fromClient atomic.Pointer[error] // the error, if the client caused it
	whole      bool                  // the whole body was sent; read after done is closed, like ended
	ended      time.Time
}

// A bodySink is the destination of a pump.
type bodySink interface {
	// sendPart sends n bytes of buf that follow chunkRoomBefore. The sink may use
	// that room, and the chunkRoomAfter after the bytes.
	sendPart(p *pump, buf []byte, n int) error
	// sendEnd ends the body, with the trailer if there is one.
	sendEnd(p *pump) error
	// bodyEnded is called when the pump ends. An error on the client's side has to
	// interrupt the wait for the reply.
	bodyEnded(byClient bool)
}

// newPump starts sending the request body of t. Trailer says that one can be sent
// behind a body of known length.
func newPump(t *attempt, to bodySink, trailer bool) *pump {
	w := t.bodyWait()
	if wantsStream(t.x) {
		w.limit = w.stream
	}
	p := &pump{x: t.x, to: to, limit: w.limit, toEnd: t.toEnd(trailer), body: t.stream(), trace: t.trace, done: make(chan struct{}), begun: time.Now()}
	go p.run(&t.up.buffers)
	return p
}

var errBodyTooLong = errors.New("l7: body longer than its length")

func (c *upConn) startPump(t *attempt) { c.pump = newPump(t, c, false) }

// tell says how the request went out, if a program looks. It does that before the
// request may end, so that nothing is told behind that.
func (p *pump) tell() {
	if p.trace == nil {
		return
	}
	err := p.clientError()
	if err == nil && !p.whole {
		err = errStopped
	}
	_ = quietly(slog.Default(), func() { p.trace.wroteAll(err) })
}

func (p *pump) run(from *buffers) {
	defer func() {
		p.ended = time.Now()
		p.to.bodyEnded(p.clientError() != nil)
		p.tell()
		close(p.done)
	}()
	b := from.pool.Get()
	defer func() { from.giveBack(b) }()
	left := p.x.ContentLength
	for {
		buf := b.B[:cap(b.B)]
		room := buf[chunkRoomBefore : len(buf)-chunkRoomAfter]
		if left >= 0 && int64(len(room)) > left {
			room = room[:left]
		}
		if left == 0 && p.toEnd {
			room = buf[chunkRoomBefore : chunkRoomBefore+1] // to detect excess bytes
		}
		n, err := 0, error(io.EOF)
		if len(room) > 0 {
			n, err = p.body.Read(room)
		}
		if n > 0 && left == 0 {
			n, err = 0, errBodyTooLong
		}
		if n > 0 {
			if err := p.to.sendPart(p, buf, n); err != nil {
				p.stuck.Store(errors.Is(err, os.ErrDeadlineExceeded))
				return // the server's side has the reason
			}
			p.moved.Store(int64(time.Since(p.begun)))
			b = from.fitting(b, n)
			if left > 0 {
				left -= int64(n)
			}
		}
		switch {
		case err == io.EOF && left <= 0:
			p.whole = p.to.sendEnd(p) == nil
			return
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		case err == nil:
			continue
		}
		if !errors.Is(err, errStopped) {
			p.fromClient.Store(&err)
		}
		return
	}
}

// sendPart implements bodySink.
func (c *upConn) sendPart(p *pump, buf []byte, n int) error {
	data := buf[chunkRoomBefore : chunkRoomBefore+n]
	if p.x.ContentLength < 0 {
		var line [chunkRoomBefore]byte
		size := appendChunkSize(line[:0], n)
		start := chunkRoomBefore - len(size)
		copy(buf[start:], size)
		copy(buf[chunkRoomBefore+n:], "\r\n")
		data = buf[start : chunkRoomBefore+n+chunkRoomAfter]
	}
	return c.sendBody(data, p.limit)
}

// sendEnd implements bodySink: it ends a chunked body, with its trailer.
func (c *upConn) sendEnd(p *pump) error {
	if p.x.ContentLength >= 0 {
		return nil
	}
	b := []byte("0\r\n")
	if f := p.x.trailer(); f != nil {
		b = appendFields(b, f)
	}
	return c.sendBody(append(b, "\r\n"...), p.limit)
}

// bodyEnded implements bodySink.
func (c *upConn) bodyEnded(byClient bool) {
	if byClient {
		c.interruptBody()
	}
}

// clientError returns the error on the client's side, or nil.
func (p *pump) clientError() error {
	if err := p.fromClient.Load(); err != nil {
		return *err
	}
	return nil
}

// running reports whether the pump is running, or returns when it ended.
func (p *pump) running() (bool, time.Time) {
	select {
	case <-p.done:
		return false, p.ended
	default:
		return true, time.Time{}
	}
}

// sending implements source.
func (c *upConn) sending() bool { return c.pump.sending() }

// sending reports whether the body is still being sent.
func (p *pump) sending() bool {
	if p == nil {
		return false
	}
	on, _ := p.running()
	return on
}

// stopSending implements source.
func (c *upConn) stopSending(t *attempt, keep bool) bool {
	if c.pump == nil {
		return t.whole
	}
	return c.pump.stop(t, keep, func(on bool) {
		if c.enough.Store(on); on {
			_ = c.c.SetWriteDeadline(past)
		} else {
			c.sendAt.forget()
		}
	})
}

// bodyPatience is how long a try that has failed waits for a read of the body that cannot
// be paused, so that the body can be sent again.
const bodyPatience = 100 * time.Millisecond

// stop ends the pump, if it is running, and reports whether it has sent the
// whole body. Enough(true) makes sends fail, and enough(false) ends that. With
// keep, the body can be read further, if that is possible: a client may send no more
// before it has a reply.
func (p *pump) stop(t *attempt, keep bool, enough func(on bool)) bool {
	if on, _ := p.running(); !on {
		return p.whole
	}
	pauses := keep && t.body.direct()
	if pauses {
		t.body.pause.Store(true)
		pauses = t.x.down.pauseBody(true)
		t.body.pause.Store(pauses)
	}
	enough(true)
	if keep && !pauses {
		keep = p.awaitEnd(bodyPatience)
	}
	if !keep {
		t.x.down.stopBody()
	}
	<-p.done
	enough(false)
	if pauses {
		t.x.down.pauseBody(false)
		t.body.pause.Store(false)
	}
	if !keep {
		t.x.down.resumeBody()
		t.stuck = true
	}
	return p.whole
}

// awaitEnd waits for the end of the pump, and reports whether it came in time.
func (p *pump) awaitEnd(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// headTime returns how much longer the head of the reply may take; 0 means no
// limit, and a negative value that the time is over. The time begins at the end
// of the request: at begun, or when the pump ended.
func (p *pump) headTime(now, begun time.Time, limit time.Duration) time.Duration {
	if p != nil {
		if p.clientError() != nil {
			return -1
		}
		on, ended := p.running()
		if on {
			return limit
		}
		begun = ended
	}
	if limit == 0 {
		return 0
	}
	if left := limit - now.Sub(begun); left > 0 {
		return left
	}
	return -1
}

// silence returns how much of limit is left at now since the server last took a part
// of the body.
func (p *pump) silence(now time.Time, limit time.Duration) time.Duration {
	if p == nil || p.clientError() != nil {
		return 0
	}
	return limit - now.Sub(p.begun) + time.Duration(p.moved.Load())
}

// look returns how long to wait for a head before the next look at the pump. A server
// that takes no more of the body may reply all the same, so the wait is not broken off.
func (p *pump) look(left time.Duration) time.Duration {
	if p == nil || p.limit <= 0 || left > 0 && left < p.limit {
		return left
	}
	switch on, _ := p.running(); {
	case on:
		return p.limit
	case p.stuck.Load():
		return time.Millisecond // it has ended since the caller looked, who looks again
	}
	return left
}
