// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// Limits of an HTTP/2 connection, on both sides. Bodies that have been received
// and not yet read take at most its streams times h2StreamWindow, plus
// h2ConnSpare.
const (
	h2StreamWindow = 64 << 10
	h2MaxWindow    = 1 << 20
	h2ConnSpare    = 2 << 20 // for streams that are read as fast as they come
	h2OutHigh      = 64 << 10
	h2Turn         = 16 << 10 // bytes that a stream adds while others wait: a frame that fills a TLS record
	h2Run          = 4        // turns in a row, until another stream whose turn it is has had that
	h2Writes       = 8        // by a goroutine that has other work
	h2Begins       = 32       // streams that a connection begins before it is the turn of others; 8 cost a tenth of small requests, as their replies are written in more pieces
	h2OutLimit     = 1 << 20  // of frames that a peer causes and does not read
	h2PingTimeout  = 15 * time.Second
	h2MostWindows  = (h2.MaxWindow - h2ConnSpare) / h2StreamWindow // that the window of a connection can hold
)

// h2ConnWindow returns the window of a connection that has so many streams.
func h2ConnWindow(streams int) int {
	return min(streams, h2MostWindows)*h2StreamWindow + h2ConnSpare
}

// An h2Link is the layer below the streams, used on both sides of HTTP/2: the
// state of the protocol and the output buffer. A goroutine that has something to
// send adds it to the buffer; if no other goroutine is writing, it writes for
// all.
type h2Link struct {
	c     *l4.Conn
	bound writeBound // of writes; not used where TLS has its own
	tls   bool       // writes are bounded below c
	lost  func(err error)
	spawn func(f func())    // runs f on a goroutine; some owners wait for it
	apart bool              // writing is always left to a goroutine of spawn
	all   func()            // the method value of writeAll, made once
	names map[string]h2Name // of fields, by their spelling
	ev    h2.Event          // the event that is being handled, or whose handling has failed
	units uint64            // frames that have come and left no head incomplete
	pause bool              // set by the owner's handle: others run before the next head
	heads int               // bytes of heads since the last pause

	mu      sync.Mutex
	h2      *h2.Conn
	spare   []byte        // the buffer that is not h2.Out
	writing bool          // a goroutine is writing
	short   bool          // it has less than a TLS record to begin with
	written chan struct{} // closed when it has written all; nil if nobody waits for that
	caused  int           // bytes of h2.Out caused by frames of the peer
	closed  bool          // nothing more is served or sent
	err     error         // why
	queue   []*h2Sender   // in the order in which they asked to send
	turns   int           // senders taken out of queue that have not sent yet
	last    uint32        // the stream that has sent last,
	run     int           // so many times since another did
	data    int64         // bytes of bodies that all streams have sent
	sleep   sleepers
	late    func()          // the method value of wakeLate, made once
	chans   []chan struct{} // of waits, for reuse
	length  int64           // the number whose text is in digits
	digits  string
}

// start begins a connection over c. Lost is called, without the lock, when
// writing has failed. Spawn starts a goroutine.
func (k *h2Link) start(c *l4.Conn, tls bool, limit time.Duration, cfg *h2.Config, lost func(error), spawn func(func())) {
	k.c, k.tls, k.lost, k.spawn = c, tls, lost, spawn
	k.names = make(map[string]h2Name)
	k.bound.set(limit)
	k.late, k.all = k.wakeLate, k.writeAll
	k.bound.whole = c.TLS() != nil // not used where the layer below has bounds
	k.h2 = h2.New(cfg)
}

// flush writes the output buffer, unless another goroutine is writing. If it is
// short it yields once, so that streams that are ready add their output: then all of it
// takes one record and one system call.
func (k *h2Link) flush() { k.flushUntil(nil, h2Writes) }

// flushAll is flush for a goroutine that has no other work.
func (k *h2Link) flushAll() { k.flushUntil(nil, math.MaxInt) }

// flushUntil is flush for a goroutine that writes at most so many times, and stops
// once it is the turn of s, its own stream if it has one. Then it leaves the rest
// to another goroutine, since others may add output without end.
func (k *h2Link) flushUntil(s *h2Sender, writes int) {
	switch {
	case k.apart:
		k.flushSoon()
	case k.mayWrite():
		if k.short {
			runtime.Gosched()
		}
		k.writeOut(s, writes)
	}
}

// mayWrite reports whether there is something to write and no goroutine is
// writing: then the caller has to write.
func (k *h2Link) mayWrite() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writing || len(k.h2.Out) == 0 {
		return false
	}
	k.writing, k.short = true, len(k.h2.Out) < h2Turn
	return true
}

// writeAll writes until nothing is left. Writing is set.
func (k *h2Link) writeAll() {
	runtime.Gosched()
	k.writeOut(nil, math.MaxInt)
}

// writeOut writes until nothing is left, or as flushUntil says. Writing is set.
func (k *h2Link) writeOut(s *h2Sender, writes int) {
	k.mu.Lock()
	for ; len(k.h2.Out) > 0; writes-- {
		if writes == 0 || s != nil && s.turn {
			k.mu.Unlock()
			k.spawn(func() { k.writeOut(nil, math.MaxInt) })
			return
		}
		out := k.h2.Take(k.spare)
		k.caused = 0
		k.mu.Unlock()
		err := k.write(out)
		k.mu.Lock()
		if k.spare = out; cap(out) > 4*h2OutHigh {
			k.spare = nil
		}
		if err != nil {
			k.h2.Take(nil) // discarded; by Take, so that no stream marks a frame in it as its last
			k.wroteAll()
			k.mu.Unlock()
			k.lost(err)
			return
		}
		k.wakeSenders()
	}
	k.wroteAll()
	k.mu.Unlock()
}

// flushSoon is flush for the goroutine that reads. It must not wait for the
// peer to read, since the peer may be waiting for us to read.
func (k *h2Link) flushSoon() {
	if k.mayWrite() {
		k.spawn(k.all)
	}
}

// receive parses the complete frames of in and calls handle for each, with the
// lock held. It fails if the peer breaks the protocol, or causes frames that it
// does not read.
func (k *h2Link) receive(in *input, b *buffers, now time.Time, handle func(*h2.Event, time.Time) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		frame, n, err := k.h2.Parse(in.bytes())
		if err == nil && n == 0 {
			break
		}
		if k.pause && frame.Type == h2.Headers && k.paused() { // not before an RST_STREAM: what it ends need not begin
			return nil
		}
		if err == nil {
			k.ev, err = k.event(frame, now)
		}
		if err == nil {
			err = handle(&k.ev, now)
		}
		if err != nil {
			return err
		}
		in.use(n)
	}
	k.ev = h2.Event{}
	in.consumed(b)
	return nil
}

// each calls f for each stream that has not ended, and for that of an event whose handling
// has failed: it may have ended by that event, and what waits for it has not heard of it.
// The lock is held.
func (k *h2Link) each(f func(*h2.Stream)) {
	k.h2.Streams(f)
	if s := k.ev.Stream; s != nil && s.State() == h2.Closed {
		f(s)
	}
}

// paused lets other goroutines run, without the lock, and reports whether the connection
// has ended meanwhile. Long heads go on when it is their turn.
func (k *h2Link) paused() (ended bool) {
	long := k.heads > headBuffer
	k.pause, k.heads, k.ev = false, 0, h2.Event{}
	k.mu.Unlock()
	if long {
		l4.TakeTurn()
	} else {
		runtime.Gosched()
	}
	k.mu.Lock()
	return k.closed
}

// event parses a frame. The lock is held.
func (k *h2Link) event(f h2.Frame, now time.Time) (h2.Event, error) {
	before := len(k.h2.Out)
	ev, err := k.h2.Receive(f, now)
	if !k.h2.InHead() {
		k.units++
	}
	if k.caused += len(k.h2.Out) - before; err == nil && k.caused > h2OutLimit {
		err = &h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "too much that is not read"}
	}
	return ev, err
}

// write returns a panic of the connection as an error, since a timer may be writing.
func (k *h2Link) write(p []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = recovered(slog.Default(), v, "connection")
		}
	}()
	if k.tls {
		_, err = k.c.Write(p)
		return err
	}
	_, err = k.bound.write(k.c, p)
	return err
}

// rest releases the memory that an idle connection does not need.
func (k *h2Link) rest() {
	if !k.writing && len(k.h2.Out) == 0 { // a GOAWAY may be about to be written
		k.spare, k.h2.Out = nil, nil
	}
	if k.h2.Rest(); len(k.queue) == 0 {
		k.queue, k.chans = nil, nil
	}
}

// finish writes what is left, and waits for the goroutine that is writing. Without it, the
// end of the connection could overtake the GOAWAY that says what was processed.
func (k *h2Link) finish() {
	k.mu.Lock()
	for k.writing {
		if k.written == nil {
			k.written = make(chan struct{})
		}
		written := k.written
		k.mu.Unlock()
		<-written
		k.mu.Lock()
	}
	k.writing = len(k.h2.Out) > 0
	more := k.writing
	k.mu.Unlock()
	if more {
		k.writeOut(nil, math.MaxInt)
	}
}

// wroteAll says that nothing is being written any more. The lock is held.
func (k *h2Link) wroteAll() {
	k.writing = false
	if k.written != nil {
		close(k.written)
		k.written = nil
	}
}
