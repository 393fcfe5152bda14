// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// Relay moves bytes between a and b, both ways, until both have ended their
// streams, one breaks, a timeout passes or ctx ends. The end of one stream is
// passed on by CloseWrite, and the other stream continues. Bytes that were read
// ahead are relayed first. An end of TLS without close_notify is passed on to TLS without one,
// and to others by CloseWrite; RelayResult.Err matches [ErrNoCloseNotify] then.
//
// The caller closes a and b afterwards. If the relay broke off, closing them resets where
// that is possible, so that no peer takes a part for the whole. It has not broken off if
// the cause of ctx matches [ErrEnd]. No more data moves once
// Relay has returned, but a goroutine of its own may end a moment later.
func Relay(ctx context.Context, a, b *Conn, opt RelayOptions) RelayResult {
	ended := make(chan struct{})
	r := &relay{}
	r.init(a, b, opt.complete(), func(*relay) { close(ended) })
	stop := context.AfterFunc(ctx, func() {
		why := Termination{Killed, PhaseData}
		if errors.Is(context.Cause(ctx), ErrEnd) {
			why = Termination{}
		}
		r.cut(why, context.Cause(ctx))
	})
	defer stop()
	p := opt.Parker
	if p == nil && b.raw != nil {
		p = parkerOf(a)
	}
	r.run(p)
	<-ended
	return r.result()
}

// A relay is two directions, and the one timer that watches over both.
//
//	       up           until src ends: dst.CloseWrite
//	a -----------> b    one breaks, or a timeout: cut, both end at once
//	  <-----------      both have ended: ended is called
//	      down
//
// Between plain sockets on Linux data is moved by events, see wire_linux.go.
// Otherwise each direction has a goroutine, see below.
type relay struct {
	up, down direction
	opt      *RelayOptions // shared by many
	start    instant
	ended    func(*relay)

	mu        sync.Mutex
	timer     *time.Timer   // nil once ended, and if wired
	half      time.Duration // when the first one has ended
	firstByte time.Duration // when b sent its first byte, since start; 0 means not yet
	err       error
	short     *Conn         // that ended TLS without close_notify first
	parker    *Parker       // if wired
	dialing   *dialing      // nil if nothing had to be waited for, or that is over
	lease     balance.Lease // of b; zero if there is none
	log       *slog.Logger  // of panics; nil means slog.Default()
	timerAt   int32         // 1 + the place among the timers of the Parker; 0 means none
	sent      int32         // bytes of a that went to b before the relay began
	isCut     atomic.Bool
	running   int8 // directions that have not ended
	end       Termination
	aborted   bool
	wired     bool // moves by events
	late      bool // b broke it when a had ended its stream already
	probes    bool // b's socket is to have keep-alive probes after probeAfter
	works     bool // b's first byte has come while mu was held, and the lease is to be told
}

// A direction is one half of a relay. Only its own goroutine reads src, and writes and
// half-closes dst; if events drive it, only the holder of r.mu does.
type direction struct {
	r        *relay
	src, dst *Conn
	last     atomic.Int64 // when data was moved last, since r.start; 0 means not yet
	moved    int64        // bytes
	state    atomic.Int32
	put      atomic.Int32 // idle, busy or owing; not used if it moves by events
	flow
	over bool // guarded by r.mu
}

// States of a direction.
const (
	running int32 = iota // a goroutine waits or moves data
	kicked               // it was woken, to see that it is idle
	resting              // it may be idle for ever
)

func (r *relay) init(a, b *Conn, opt *RelayOptions, ended func(*relay)) {
	r.opt, r.ended, r.running = opt, ended, 2
	r.start = instantNow()
	r.up = direction{r: r, src: a, dst: b, moved: int64(r.sent)}
	r.down = direction{r: r, src: b, dst: a}
}

// run moves data until the end in this goroutine and another, or starts to
// move it by events.
func (r *relay) run(p *Parker) {
	if r.wire(p) {
		return
	}
	// Deadlines of what was before are over; cut may have set its own already.
	err := guard(r.log, "connection", func() {
		r.up.src.SetDeadline(time.Time{})
		r.down.src.SetDeadline(time.Time{})
	})
	if err != nil {
		r.cut(Termination{Internal, PhaseData}, err)
		r.up.finish()
		r.down.finish()
		return
	}
	if r.isCut.Load() {
		r.wake()
	}
	r.watch(linger)
	go r.down.run()
	r.up.run()
}

// wake ends all waiting of goroutines.
func (r *relay) wake() {
	for _, c := range [...]*Conn{r.up.src, r.down.src} {
		guard(r.log, "connection", func() {
			if c.SetDeadline(time.Unix(1, 0)) != nil {
				breakOff(c) // it has no deadlines, as a channel of SSH, or is closed already
			}
		})
	}
}

// watch starts the timer.
func (r *relay) watch(first time.Duration) {
	r.mu.Lock() // the timer may be quick
	defer r.mu.Unlock()
	if r.running > 0 {
		r.timer = time.AfterFunc(first, r.tick)
	}
}

func (r *relay) result() RelayResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.err
	switch {
	case r.end != (Termination{}) || err != nil || r.short == nil:
	case r.short == r.up.src:
		err = errClientShort
	default:
		err = errServerShort
	}
	return RelayResult{AtoB: r.up.moved, BtoA: r.down.moved, Termination: r.end, Err: err}
}

func (r *relay) now() time.Duration { return time.Duration(instantNow() - r.start) }

// run moves data until the stream ends, or is idle for a while. A panic of the host's
// code, in a connection or in a callback of its TLS, ends the relay.
func (d *direction) run() {
	defer func() {
		if err := recovered(recover(), d.r.log, "relay"); err != nil {
			d.r.cut(Termination{Internal, PhaseData}, err)
			d.finish()
		}
	}()
	for {
		err := d.move()
		switch {
		case err == nil:
			continue
		case d.r.isCut.Load():
			d.finish()
			return
		case isTimeout(err) && !isWriteError(err):
			if d.rest() {
				return
			}
		default:
			d.stop(err)
			return
		}
	}
}

// move waits for data and passes on what one read gives.
func (d *direction) move() error {
	pool := d.r.opt.Buffers
	b, err := d.src.ReadBuffer(pool)
	if err != nil {
		return err
	}
	if d.touch() {
		d.r.tellWorks()
	}
	d.put.Store(busy)
	n, err := d.dst.Write(b.B)
	pool.Put(b)
	d.moved += int64(n)
	if err != nil {
		return &writeError{err} // busy until finish
	}
	d.settle()
	return nil
}

// touch notes that data was moved, and returns true at b's first byte.
func (d *direction) touch() (first bool) {
	now := max(int64(d.r.now()), 1)
	if d.last.Load() == 0 {
		if first = d == &d.r.down; first {
			d.r.firstByte = time.Duration(now)
		}
	}
	d.last.Store(now)
	return first
}

// tellWorks notes in the lease that b has answered; r.mu is not held.
func (r *relay) tellWorks() {
	defer func() { recovered(recover(), r.log, "observer") }()
	r.lease.Works(0)
}

// A writeError is an error of dst.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

func isWriteError(err error) bool {
	_, ok := err.(*writeError)
	return ok
}

// rest is called when the read deadline has passed, which means that tick considers the
// direction idle. It returns true if the goroutine is to end.
func (d *direction) rest() bool {
	d.src.SetReadDeadline(time.Time{})
	if d.r.isCut.Load() { // it may have been its deadline that was removed
		d.finish()
		return true
	}
	if d.r.now()-time.Duration(d.last.Load()) < linger {
		d.state.Store(running)
		d.r.retick()
		return false
	}
	d.state.Store(resting)
	go d.run() // with a small stack, and it rests no more
	return true
}

// stop ends the direction for err.
func (d *direction) stop(err error) {
	switch {
	case isWriteError(err):
		// dst accepts no more, but what it sent last may still be in flight.
		d.r.note(d.r.gone(d.dst), errors.Unwrap(err))
	case errors.Is(err, io.EOF):
		if !d.r.last() && d.doubtful() {
			return
		}
		if CutShort(d.src) {
			d.passShort()
			break
		}
		if d.r.last() {
			break // what ended is closed next
		}
		d.passEnd()
	default:
		d.r.cut(d.r.gone(d.src), err)
	}
	d.finish()
}

// passEnd passes the end of src on. TLS writes to do so, which may be what the kernel
// tells of a reset, so that the other direction would read an end.
func (d *direction) passEnd() {
	d.put.Store(busy) // until finish
	err := d.dst.CloseWrite()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		d.r.cut(Termination{}, nil) // a full close is all that is left
	case err != nil && d.dst.raw == nil:
		d.r.mu.Lock()
		defer d.r.mu.Unlock()
		d.r.late = d.r.late || d == &d.r.up // as a had ended its stream
		d.r.noteNow(d.r.gone(d.dst), err)
	}
}

// gone notes that c broke the relay.
func (r *relay) gone(c *Conn) Termination {
	if c == r.up.src {
		return Termination{ClientAborted, PhaseData}
	}
	return Termination{ServerAborted, PhaseData}
}

// last reports whether one direction is over.
func (r *relay) last() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running == 1
}

// finish is the last step of a direction.
func (d *direction) finish() {
	r := d.r
	r.mu.Lock()
	d.state.Store(resting)
	again := d.over // it was a panic at the end
	last := !again && d.overNow()
	r.mu.Unlock()
	switch {
	case last:
		r.close()
	case !again: // nothing reads src any more, so a close would go unnoticed
		d.src.OnClose(func() { r.cut(r.gone(d.src), net.ErrClosed) })
	}
	d.settle()
}

// overNow notes that d is over, and returns true if both directions are; r.mu is held.
func (d *direction) overNow() (last bool) {
	r := d.r
	d.over = true
	r.running--
	r.half = r.now()
	switch {
	case r.wired && r.running > 0: // the half-closed timeout begins
		r.tickAt(r.nextTick())
	case r.wired:
		r.tickNoMore()
	case r.timer == nil:
	case r.running > 0:
		r.timer.Reset(min(r.nextTick()-r.half, linger))
	default:
		r.timer.Stop()
		r.timer = nil
	}
	return r.running == 0
}

// close is called once both directions are over.
func (r *relay) close() {
	r.unwire()
	r.mu.Lock()
	aborted := r.aborted
	r.mu.Unlock()
	if aborted {
		Abort(r.up.src)
		Abort(r.up.dst)
	}
	r.ended(r)
}

// note keeps the first reason given before the end.
func (r *relay) note(t Termination, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteNow(t, err)
}

func (r *relay) noteNow(t Termination, err error) {
	if r.running == 0 {
		return // it has ended by itself
	}
	if t.Cause == ServerAborted && r.up.over {
		r.late = true
	}
	if r.end == (Termination{}) && r.err == nil {
		r.end, r.err = t, err
	}
	r.aborted = r.aborted || t != Termination{}
}

// cut ends both directions at once.
func (r *relay) cut(t Termination, err error) {
	if r.isCut.Swap(true) {
		return
	}
	r.note(t, err)
	if r.cutWire() {
		return
	}
	r.wake()
}
