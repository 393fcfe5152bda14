// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

const (
	defaultMaxStreams = 100
	h2LeaveTimeout    = time.Second // for the answer to the PING after the first GOAWAY
)

// h2Front serves an HTTP/2 connection. The connection's goroutine reads frames.
// Each stream is served on a goroutine that is kept for the next one, since its
// stack has grown. The first goroutine that has something to send writes for
// all that have something by then.
type h2Front struct {
	h2Link // its mu guards the fields below, from waiting on
	srv    *Server
	conn   *byteConn
	from   *origin
	emit   func(*h2.HeaderField) // the method value of field, made once
	cur    *h2Exchange           // the exchange whose head or trailer is being decoded
	dec    *h2Head               // the result of the decoding
	pinged bool                  // a PING of ours is not answered yet
	part   h2Part                // of a head that has come in part

	hosts   misdirected
	workers sync.WaitGroup

	waiting  bool // the reader waits for a frame
	between  bool // and has received no part of it
	idle     []chan *h2Exchange
	leaving  h2Leaving
	patience *time.Timer // for the answer to the PING after the first GOAWAY
	served   int
	granted  int // MAX_CONCURRENT_STREAMS as last sent
	lingers  int // streams whose reply has ended before their request
}

// h2Leaving is how much the client has been told of the end of the connection
// (RFC 9113, section 6.8).
type h2Leaving uint8

const (
	h2Staying h2Leaving = iota
	h2Warned            // GOAWAY without a last stream, and a PING to learn when it has arrived
	h2Left              // GOAWAY with the last stream
)

// leavePing is the data of the PING after the first GOAWAY.
var leavePing = [8]byte{'l', 'e', 'a', 'v', 'e'}

// startHTTP2 begins HTTP/2 on the connection.
func (c *byteConn) startHTTP2() {
	streams := c.srv.maxStreams()
	from := c.comesFrom()
	f := &h2Front{conn: c, srv: c.srv, from: &from}
	head := orDefault(c.srv.MaxHeaderBytes, defaultMaxHeader)
	f.start(c.c, c.nc != c.raw, orDefault(c.srv.SendTimeout, defaultSendTimeout), &h2.Config{
		MaxStreams: streams, MaxFrame: h2.MinMaxFrame, MaxBlock: max(2*min(head, math.MaxInt/2), 64<<10), MaxHeaders: head,
		Connect: true, StreamWindow: h2StreamWindow, MaxWindow: h2MaxWindow, ConnWindow: h2ConnWindow(streams),
	}, f.unwritable, f.workers.Go)
	f.emit, f.granted = f.field, streams
	if n := c.srv.grant(c.srv.serving.Load()); n < streams {
		f.granted = n
		f.h2.SetMaxStreams(n)
	}
	c.giveWork()
	c.unwatch() // the reader notices the end itself
	c.mu.Lock()
	c.h2 = f
	c.mu.Unlock()
	c.leaving.begun.Store(true)
}

// http2 returns the HTTP/2 front of the connection, nil for HTTP/1.
func (c *byteConn) http2() *h2Front {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.h2
}

// run reads frames until the connection ends, or is idle and has to be settled.
func (f *h2Front) run() (idle bool) {
	c := f.conn
	for {
		if !c.in.empty() && !f.receive() {
			return false
		}
		f.flushSoon()
		if more, settle := f.wait(); !more {
			return settle
		}
	}
}

// wait reads more. It is false at the end of the connection, or if the
// connection has to be settled.
func (f *h2Front) wait() (more, settle bool) {
	c := f.conn
	f.boundWait(time.Now())
	f.mu.Lock()
	f.waiting, f.between = true, c.in.empty() && !f.h2.InHead()
	if f.over() {
		f.linger()
		f.mu.Unlock()
		return false, false
	}
	if f.h2.Open() == 0 && f.between {
		c.goIdle()
	}
	leave := f.leaving == h2Staying && (c.outNow() || f.served > 0 && c.lingers()) // seen here, or tell sees the state
	f.mu.Unlock()
	if leave {
		f.leave()
	}
	err := f.read()
	f.mu.Lock()
	f.waiting, f.between = false, false
	interrupted := !c.state.is(stateBusy) && c.goBusy()
	open, over := f.h2.Open(), f.over()
	if over {
		f.linger()
	}
	f.mu.Unlock()
	switch {
	case over:
		return false, false
	case err == nil:
		f.pinged, c.settled = false, false
		return true, false
	case !errors.Is(err, os.ErrDeadlineExceeded):
		f.fail(err)
		return false, false
	case interrupted && c.outNow():
		f.leave()
		return true, false
	case interrupted && open == 0:
		return false, !c.settled
	case interrupted:
		return true, false
	case open > 0 && !f.pinged && c.in.empty() && !f.h2.InHead():
		f.pinged = true
		f.mu.Lock()
		f.h2.WritePing([8]byte{})
		f.mu.Unlock()
		f.flush()
		return true, false
	case open > 0:
		f.fail(err)
		return false, false
	}
	f.goodbye()
	c.ends.atLeast(endsLate)
	return false, false
}

// linger lets a client that has been told to leave close the connection: a request that
// crosses the GOAWAY would reset it, and the GOAWAY could be lost. F.mu is held.
func (f *h2Front) linger() {
	if !f.closed {
		f.conn.ends.atLeast(endsLate)
	}
}

// over reports whether the client has the last GOAWAY and all streams have
// ended. F.mu is held.
func (f *h2Front) over() bool {
	return f.closed || f.leaving == h2Left && f.h2.Open() == 0
}

// read reads more and appends it to the input.
func (f *h2Front) read() error {
	c := f.conn
	return c.in.fillBulk(c.c, &c.srv.buffers)
}

// receive handles the complete frames of the input. It is false if one of them
// ended the connection.
func (f *h2Front) receive() bool {
	err := f.h2Link.receive(&f.conn.in, &f.srv.buffers, time.Now(), f.handle)
	if err != nil {
		f.refuse(err)
	}
	return err == nil
}

// handle handles an event. F.mu is held.
func (f *h2Front) handle(ev *h2.Event, now time.Time) error {
	switch ev.Kind {
	case h2.Head:
		return f.head(ev, now)
	case h2.Trailer:
		return f.trailer(ev, now)
	case h2.Body:
		return ev.Stream.Owner.(*h2Exchange).receive(ev, now)
	case h2.Reset:
		ev.Stream.Owner.(*h2Exchange).reset(ev)
	case h2.Writable:
		f.wakeSenders()
	case h2.Configured:
		f.wakeSenders() // windows may have grown
	case h2.Acknowledged:
		f.regrant() // what has changed since waited for this
	case h2.Pong:
		if ev.Ping == leavePing {
			f.leaveNow()
		}
	}
	return nil
}

// refuse ends a connection whose client has broken the protocol.
func (f *h2Front) refuse(err error) {
	f.mu.Lock()
	code := h2.InternalError
	var ce *h2.ConnError
	if errors.As(err, &ce) {
		code = ce.Code
		f.h2.Leave(false, code, ce.Reason)
	}
	f.leaving = h2Left
	f.mu.Unlock()
	f.flush()
	f.srv.logger().Debug("l7: HTTP/2 connection refused", "remote", f.from.remote, "error", err)
	f.conn.ends.atLeast(endsLate) // or unread bytes would reset the connection and lose the GOAWAY
	f.fail(err)
	f.srv.abused(f.from.remote, err)
}

// fail ends every stream: the client has disconnected, or is treated so.
func (f *h2Front) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.closed, f.err = true, err
	f.each(func(s *h2.Stream) {
		if x, ok := s.Owner.(*h2Exchange); ok {
			x.lose(err)
		}
	})
}

// end waits for the streams. After it the connection is not used any more.
func (f *h2Front) end() {
	f.fail(net.ErrClosed)
	f.mu.Lock()
	f.dismiss()
	if f.patience != nil {
		f.patience.Stop()
	}
	f.mu.Unlock()
	f.workers.Wait()
	if f.conn.ends == endsLate {
		f.finish()
	}
	f.mu.Lock()
	f.sleep.stop()
	f.mu.Unlock()
	f.conn.in.release(&f.srv.buffers)
}

// dismiss ends the goroutines that are kept for the next stream. F.mu is held.
func (f *h2Front) dismiss() {
	for _, w := range f.idle {
		close(w)
	}
	f.idle = nil
}

// rest releases the memory that an idle connection does not need.
func (f *h2Front) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dismiss()
	f.h2Link.rest()
}

// leave tells the client that the connection ends after the streams in flight
// (RFC 9113, section 6.8).
func (f *h2Front) leave() {
	f.mu.Lock()
	if f.leaving == h2Staying && !f.closed {
		f.leaving = h2Warned
		f.h2.Leave(true, h2.NoError, "")
		if f.h2.Open() == 0 && f.waiting && !f.conn.lingers() {
			f.leaveNow() // a stream in flight may be sent again
		} else {
			f.h2.WritePing(leavePing)
			f.patience = time.AfterFunc(h2LeaveTimeout, func() {
				f.mu.Lock()
				f.leaveNow()
				f.mu.Unlock()
				f.flush()
			})
		}
	}
	f.mu.Unlock()
	f.flush()
}

// leaveNow sends the GOAWAY with the last stream. F.mu is held.
func (f *h2Front) leaveNow() {
	if f.leaving != h2Warned || f.closed {
		return
	}
	f.leaving = h2Left
	f.h2.Leave(false, h2.NoError, "")
	f.wakeReader()
}

// wakeReader makes the reader check whether the connection is over. F.mu is held.
func (f *h2Front) wakeReader() {
	if f.over() && f.waiting {
		if quietlyLocked(f.srv.logger(), func() { _ = f.conn.nc.SetReadDeadline(past) }) != nil {
			_ = quietlyLocked(f.srv.logger(), func() { _ = f.conn.raw.Close() })
		}
	}
}

// told reports whether the client has the last GOAWAY, or is about to get it.
func (f *h2Front) told() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaving == h2Left
}

// goodbye sends GOAWAY to a client that has no streams in flight.
func (f *h2Front) goodbye() {
	f.mu.Lock()
	if f.leaving != h2Left && !f.closed {
		f.leaving = h2Left
		f.h2.Leave(false, h2.NoError, "")
	}
	f.mu.Unlock()
	f.flush()
}

// begin starts serving a stream. F.mu is held.
func (f *h2Front) begin(s *h2Exchange) {
	if n := len(f.idle); n > 0 {
		w := f.idle[n-1]
		f.idle = f.idle[:n-1]
		w <- s
		return
	}
	w := make(chan *h2Exchange, 1)
	w <- s
	f.workers.Go(func() { f.work(w) })
}

// work serves one stream after another.
func (f *h2Front) work(w chan *h2Exchange) {
	growStackHTTP2(0)
	for s := range w {
		s.serve()
		f.flushAll()
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			return
		}
		f.idle = append(f.idle, w)
		f.mu.Unlock()
	}
}

// unwritable closes a connection on which a write has failed.
func (f *h2Front) unwritable(err error) {
	f.fail(err)
	_ = quietly(f.srv.logger(), func() { _ = f.conn.raw.Close() }) // ends the reader
}

// errStreamReset is the error of a stream that the client has reset.
var errStreamReset = errors.New("l7: the client has reset the stream")

var _ downstream = (*h2Exchange)(nil)
