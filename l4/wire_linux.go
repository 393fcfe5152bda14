// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"syscall"
	"time"
)

// A relay between two plain sockets is wired: the Parker's goroutine moves
// what there is to move when epoll says so, and nothing waits in between. No
// goroutine, stack or buffer is held by a connection that is idle, and a
// message costs one read and one write. Events are edges:
//
//	IN      src has something new: read until a read is short of the buffer
//	RDHUP   ... or, if the peer has ended its stream, until it says so
//	PRI     ... or, if it has sent urgent data, at which a read ends, until there is nothing;
//	        and so always for Unix sockets, where one ends at a message with descriptors
//	OUT     dst takes more again: asked for once a write did not go through
//
// Everything below happens with r.mu held.

const (
	turn      = 256 << 10 // bytes that one direction moves before others get their turn
	bulkAfter = 4         // full buffers in a row after which data is spliced
)

// A flow is what a wired direction remembers.
type flow struct {
	held     *Buffer // what was read and dst did not take yet, from off on; nil if there is none
	pipe     *pipe   // while data is spliced
	off      int32
	full     int8 // reads in a row that filled the buffer, of bulkAfter
	readable bool // src may have something to read
	readOn   bool // a short read does not mean that src has no more: see eventsOn and isUnix
	ended    bool // src has
}

// wire makes p move the relay's data; false if it cannot.
func (r *relay) wire(p *Parker) bool {
	if p == nil || r.up.src.raw == nil || r.up.dst.raw == nil {
		return false
	}
	r.mu.Lock()
	if !r.wireNow(p) {
		r.mu.Unlock()
		return false
	}
	r.leave()
	return true
}

// wireNow is wire with r.mu held.
func (r *relay) wireNow(p *Parker) bool {
	if r.isCut.Load() {
		return false
	}
	a, b := r.up.src, r.up.dst
	r.wired, r.parker = true, p
	for _, d := range [...]*direction{&r.up, &r.down} {
		d.readOn = d.src.isUnix()
		if ahead := d.src.ahead; len(ahead) > 0 { // what was read ahead goes first
			d.held, d.src.ahead = &Buffer{B: ahead}, nil
		}
	}
	var was dialing
	if r.dialing != nil {
		was, r.dialing = *r.dialing, nil
	}
	if !p.wire(a, r) || b != was.to && !p.wire(b, r) {
		p.unwire(a)
		for _, d := range [...]*direction{&r.up, &r.down} {
			if d.held != nil {
				d.src.ahead, d.held = d.held.B, nil
			}
		}
		r.wired = false
		return false
	}
	r.tickAt(r.nextTick())
	if was.broken != nil {
		r.up.broken(was.broken)
	} else if r.up.stuck() {
		r.up.pump()
	}
	early := was.early &^ syscall.EPOLLOUT
	r.down.readable, r.down.readOn = early != 0, r.down.readOn || early&eventsOn != 0
	if r.down.readable || r.down.stuck() {
		r.down.pump()
	}
	return true
}

// tickAt has tick called when due has passed since the start; r.mu is held.
func (r *relay) tickAt(due time.Duration) {
	if due < forever {
		r.parker.timers.set(r, r.start+instant(due))
	}
}

func (r *relay) tickNoMore() { r.parker.timers.stop(r) }

// leave unlocks r.mu, and does what must not be done with it held.
func (r *relay) leave() {
	last, works := r.running == 0, r.works
	r.works = false
	r.mu.Unlock()
	if works {
		r.tellWorks()
	}
	if last {
		r.close()
	}
}

// event is told by the Parker, or by Close of c, what has happened to c. It reports
// whether that matters to the relay: c may be the server of an earlier try, which has
// been closed because it was lost, and be told of at any time later.
func (r *relay) event(c *Conn, events uint32) (ours bool) {
	r.mu.Lock()
	switch {
	case !r.wired:
		r.answered(c, events)
		left := r.hasLeft(c, events)
		r.mu.Unlock()
		if left != nil {
			left()
		}
		return false
	case r.running == 0, c != r.up.src && c != r.up.dst:
		r.mu.Unlock()
		return false
	}
	from, to := &r.up, &r.down
	if c != from.src {
		from, to = to, from
	}
	if events&^syscall.EPOLLOUT != 0 {
		from.readable = true
		from.readOn = from.readOn || events&eventsOn != 0
		from.pump()
		if events&syscall.EPOLLERR != 0 && !from.over && from.stuck() {
			from.broken(syscall.ECONNRESET) // no read would find it
		}
	}
	if events&(syscall.EPOLLOUT|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		to.pump()
	}
	r.leave()
	return true
}

// closed is called when c has been closed. Bytes already read from it are still
// written, if that is possible at once.
func (r *relay) closed(c *Conn) {
	if r.event(c, syscall.EPOLLHUP) {
		r.cut(r.gone(c), net.ErrClosed)
	}
}

// cutWire ends a wired relay; false if it is not wired.
func (r *relay) cutWire() bool {
	r.mu.Lock()
	if !r.wired {
		r.mu.Unlock()
		return false
	}
	was := r.running
	r.cutNow()
	r.mu.Unlock()
	if was > 0 {
		r.close()
	}
	return true
}

func (r *relay) cutNow() {
	r.isCut.Store(true)
	r.up.endWire()
	r.down.endWire()
}

// endWire is the end of one direction.
func (d *direction) endWire() {
	if !d.over {
		d.drop()
		d.overNow()
	}
}

// drop gives back what the direction has borrowed.
func (d *direction) drop() {
	d.r.parker.buffers.Put(d.held)
	d.held, d.off = nil, 0
	if d.pipe != nil {
		d.r.parker.putPipe(d.pipe)
		d.pipe = nil
	}
}

// pump moves data until there is none, dst takes no more, or it was enough
// for one turn.
func (d *direction) pump() { d.pumpSome(turn) }

func (d *direction) pumpSome(room int) {
	for !d.over {
		if d.stuck() && !d.flush() {
			return
		}
		if d.ended {
			d.endStream()
			return
		}
		if !d.readable {
			return
		}
		if room <= 0 {
			d.r.parker.rearm(d.src, false) // says again that it is readable
			return
		}
		n, err := d.fill()
		if err != nil {
			d.broken(err)
			return
		}
		room -= n
	}
}

// touchNow is touch with r.mu held.
func (d *direction) touchNow() {
	if d.touch() {
		d.r.works = true
	}
}

// stuck reports whether there is something that dst did not take yet.
func (d *direction) stuck() bool {
	return d.held != nil || d.pipe != nil && d.pipe.n > 0
}

// fill takes once from src, and says how much.
func (d *direction) fill() (int, error) {
	if d.full == bulkAfter && d.pipe == nil {
		if d.pipe = d.r.parker.getPipe(); d.pipe == nil {
			d.full++ // never again
		}
	}
	if d.pipe != nil {
		return d.fillPipe()
	}
	pool := &d.r.parker.buffers
	b := pool.Get()
	n, err := d.src.readNow(b.B, nil)
	if n > 0 {
		d.touchNow()
		size := len(b.B)
		d.held, b.B = b, b.B[:n]
		switch {
		case n == size && d.full < bulkAfter:
			d.full++
		case n < size && d.full <= bulkAfter:
			d.full = 0
		}
		if n < size && d.readOn {
			return d.fillLast(n)
		} else if n < size {
			d.readable = false // all there was; more makes another edge
		}
		return n, nil
	}
	pool.Put(b)
	return 0, d.nothing(err)
}

// fillLast reads on after n bytes that are still to be written, so that the end of the
// stream, which most likely comes next, can go in one packet with them.
func (d *direction) fillLast(n int) (int, error) {
	b := d.held
	m, err := d.src.readNow(b.B[n:cap(b.B)], nil)
	if m > 0 {
		b.B = b.B[:n+m]
		return n + m, nil
	}
	if err = d.nothing(err); err != nil {
		d.flush() // the error ends everything
	}
	return n, err
}

// fillPipe is fill by splice. A pipe may be full before src is empty, so that
// only EAGAIN ends it.
func (d *direction) fillPipe() (int, error) {
	n, err := d.src.readNow(nil, d.pipe)
	if n > 0 {
		d.touchNow()
		d.pipe.n = n
		return n, nil
	}
	d.r.parker.putPipe(d.pipe)
	d.pipe, d.full = nil, 0
	if err == nil || err == syscall.EAGAIN && d.readOn {
		return 0, nil // a read tells: before urgent data, a splice does as if this were all
	}
	return 0, d.nothing(err)
}

// nothing is what it means that src gave nothing.
func (d *direction) nothing(err error) error {
	switch err {
	case syscall.EAGAIN:
		d.readable = false
		return nil
	case nil:
		d.ended = true
		d.src.flags.set(peerGone)
	}
	return err
}

// flush writes what is pending; false if it did not all go.
func (d *direction) flush() bool {
	var (
		n   int
		err error
	)
	if d.held != nil {
		n, err = d.dst.writeNow(d.held.B[d.off:], nil, d.ended && d.r.running == 2) // then endStream follows
		d.off += int32(n)
	} else {
		n, err = d.dst.writeNow(nil, d.pipe, false)
	}
	if n > 0 {
		d.moved += int64(n)
		d.touchNow()
	}
	switch {
	case err == syscall.EAGAIN:
		d.r.parker.rearm(d.dst, true)
		return false
	case err != nil:
		d.refused(err)
		return false
	}
	d.r.parker.buffers.Put(d.held)
	d.held, d.off = nil, 0
	return true
}

// endStream passes on the end of src.
func (d *direction) endStream() {
	if d.r.running == 2 { // else what ended is closed next
		d.dst.CloseWrite()
	}
	d.endWire()
}

// refused is what becomes of an error of dst: it takes no more, but what it
// sent last may still be on its way.
func (d *direction) refused(err error) {
	d.r.noteNow(d.r.gone(d.dst), d.dst.opError("write", err))
	d.endWire()
}

// broken is what becomes of an error of src.
func (d *direction) broken(err error) {
	d.src.flags.set(peerGone)
	d.r.noteNow(d.r.gone(d.src), d.src.opError("read", err))
	d.r.cutNow()
}
