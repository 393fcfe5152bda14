// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// A Parker waits for events on connections on behalf of their owners. It holds
// idle ones without a goroutine (Park), and reports when the peer of a busy one
// has closed its side (Watch). It is one epoll instance, itself waited on
// through the runtime's poller, so that it costs one goroutine and no thread.
//
// It works for Conns over a *net.TCPConn or a stream *net.UnixConn on Linux; for other
// connections its methods return false. Other systems have no Parker. All methods may be
// called at once by many goroutines. If a callback panics, that is logged to
// slog.Default, and the connection is closed.
//
// It is for package l7: see "Machinery" in the package documentation.
type Parker struct {
	file  *os.File
	ep    int
	run   sync.WaitGroup
	asker asker // of Run, after each full batch of events

	mu     sync.Mutex
	closed bool
	over   bool              // Run waits for what run counts, or has ended: nothing may be added
	slots  []*[slotPage]slot // pages that stay where they are: a slice that grows leaves garbage
	used   int32             // slots that have ever been used
	free   []int32

	buffers BufferPool // of wired relays, larger than most
	pipes   []*pipe    // spare ones; guarded by mu
	timers  relayTimers
}

const slotPage = 64

func (p *Parker) slot(i int32) *slot { return &p.slots[i/slotPage][i%slotPage] }

// An event refers to a slot. The generation of the slot tells an event of its connection
// from a late one of the connection that had the slot before.
type slot struct {
	c          *Conn
	generation int32
}

// parked is a Conn's slot in the Parker that c.parker points to, guarded by
// that one's mu.
type parked struct {
	slot  int32
	added bool   // to the epoll instance
	out   bool   // wired, and told when writable
	ready func() // called once when readable; nil if not parked
	gone  func() // called once when the peer has gone; nil if not watched
	wired *relay // told of everything; nil if not wired
}

const (
	epollET     = 1 << 31 // syscall.EPOLLET is negative
	eventsPark  = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT
	eventsWatch = syscall.EPOLLRDHUP | epollET
	eventsWired = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLPRI | epollET
	eventsGone  = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
	eventsOn    = eventsGone | syscall.EPOLLPRI // there may be more behind a short read
)

// NewParker returns a Parker, which works while Run is running. The error is
// errors.ErrUnsupported on systems that have none.
//
// It is for package l7: see "Machinery" in the package documentation.
func NewParker() (*Parker, error) {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err == nil {
		err = syscall.SetNonblock(ep, true) // so that NewFile leaves it to the poller
	}
	if err != nil {
		return nil, fmt.Errorf("l4: parker: %w", err)
	}
	p := &Parker{file: os.NewFile(uintptr(ep), "epoll"), ep: ep}
	p.buffers.Size = maxSyscall
	return p, nil
}

// Run waits for events until Close, then for the goroutines it has started,
// and returns nil.
func (p *Parker) Run() error {
	defer p.wait()
	defer p.asker.close()
	err := eachEvents(p.file, &p.asker, func(events []syscall.EpollEvent) {
		for _, ev := range events {
			p.handle(ev)
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	return fmt.Errorf("l4: parker: %w", err)
}

// wait waits for what Run has started. A connection may be closed even then, and a
// WaitGroup must not be added to while a goroutine waits for it.
func (p *Parker) wait() {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.run.Wait()
}

// Close ends Run. Parked connections stay parked without a notification: their
// owners must close them first.
func (p *Parker) Close() error {
	p.mu.Lock()
	p.closed = true
	for _, pipe := range p.pipes {
		pipe.close()
	}
	p.pipes = nil
	p.mu.Unlock()
	return p.file.Close()
}

func (p *Parker) handle(ev syscall.EpollEvent) {
	p.mu.Lock()
	s := *p.slot(ev.Fd)
	if s.c == nil || s.generation != ev.Pad || p.closed {
		p.mu.Unlock()
		return
	}
	k := &s.c.parked
	if r := k.wired; r != nil {
		p.mu.Unlock()
		r.event(s.c, ev.Events)
		return
	}
	ready, gone := k.ready, (func())(nil)
	k.ready = nil
	if ev.Events&eventsGone != 0 {
		s.c.flags.set(peerGone)
		gone, k.gone = k.gone, nil
	}
	if ready != nil {
		if k.gone != nil {
			p.control(s.c) // back from parked to watched
		}
		p.run.Add(1)
		go p.ready(s.c, ready)
	}
	c := s.c
	p.mu.Unlock()
	if gone != nil {
		p.call(c, gone)
	}
}

// ready calls what waited for c in a goroutine of its own.
func (p *Parker) ready(c *Conn, f func()) {
	defer p.run.Done()
	p.call(c, f)
}

// call calls f, which is about c and is the host's: if it panics, c is closed.
func (p *Parker) call(c *Conn, f func()) {
	if guard(nil, "function of a Parker", f) != nil {
		guard(nil, "Close", func() { c.Close() })
	}
}

// Watch calls gone once when the peer of c ends its stream or the connection, within
// moments; other goroutines may read and write c meanwhile. Data does not cause a call.
// If the peer has disconnected already, gone is called at once. The Parker's own
// goroutine calls it, so it must not block. Watch returns false if c cannot be watched; a
// second Watch replaces the first.
func (p *Parker) Watch(c *Conn, gone func()) bool {
	return p.set(c, func(k *parked) { k.gone = gone })
}

// Unwatch ends Watch.
func (p *Parker) Unwatch(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parker.Load() != p {
		return
	}
	if c.parked.gone = nil; c.parked.ready == nil && c.parked.wired == nil {
		p.drop(c, true)
	}
}

// Park registers ready to be called once, in a new goroutine, when there is something to
// read from c or its peer has closed. Until then no goroutine may read from c. It returns
// false and does nothing if c cannot be parked, or if c has bytes read ahead. Ready is
// also called when c is closed, so that its owner learns of it.
func (p *Parker) Park(c *Conn, ready func()) bool {
	if len(c.ahead) > 0 {
		return false
	}
	c.leavePoller()
	return p.set(c, func(k *parked) { k.ready = ready })
}

// leavePoller is for a connection that a Parker waits for from now on.
func (c *Conn) leavePoller() {
	if s, ok := c.nc.(*sock); ok {
		s.leave()
	}
}

// Unpark undoes Park. If it returns true, ready has not been called and will not be, and
// the caller may read from c.
func (p *Parker) Unpark(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parker.Load() != p || c.parked.ready == nil {
		return false
	}
	c.parked.ready = nil
	if c.parked.gone == nil || !p.control(c) {
		p.drop(c, true)
	}
	return true
}

// wire reports all events of c to r from now on; c must not be parked.
func (p *Parker) wire(c *Conn, r *relay) bool {
	c.leavePoller()
	return p.set(c, func(k *parked) { k.wired = r })
}

// unwire undoes wire, for a connection that is closed next.
func (p *Parker) unwire(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parker.Load() == p && c.parked.wired != nil {
		p.drop(c, false)
	}
}

// unwatch undoes wire for a connection that stays open.
func (p *Parker) unwatch(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parker.Load() == p && c.parked.wired != nil {
		p.drop(c, true)
	}
}

func (r *relay) unwire() {
	if r.wired {
		r.parker.unwire(r.up.src)
		r.parker.unwire(r.up.dst)
	}
}

// rearm reports the state of c again, and, with out, also when c becomes writable from
// now on.
func (p *Parker) rearm(c *Conn, out bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parker.Load() != p || out && c.parked.out {
		return
	}
	c.parked.out = c.parked.out || out
	p.control(c)
}

func (p *Parker) getPipe() *pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.pipes); n > 0 {
		pipe := p.pipes[n-1]
		p.pipes = p.pipes[:n-1]
		return pipe
	}
	return newPipe()
}

func (p *Parker) putPipe(pipe *pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pipe.n == 0 && len(p.pipes) < sparePipes && !p.closed {
		p.pipes = append(p.pipes, pipe)
		return
	}
	pipe.close()
}

// set changes what is asked for c, which gets a slot if it has none.
func (p *Parker) set(c *Conn, change func(*parked)) bool {
	if c.raw == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := &c.parked
	if p.closed || !p.add(c) {
		return false
	}
	before := *k
	change(k)
	ok := p.control(c)
	switch {
	case c.flags.has(isClosed) && before.ready == nil && before.wired == nil: // Close may have missed the slot
		p.drop(c, false)
		return false
	case ok:
		return true
	case !before.added:
		p.drop(c, false)
	default:
		k.ready, k.gone, k.wired = before.ready, before.gone, before.wired
	}
	return false
}

// add gives c a slot if it has none; it is false if c has one of another
// Parker. p.mu is held.
func (p *Parker) add(c *Conn) bool {
	if !c.parker.CompareAndSwap(nil, p) {
		return c.parker.Load() == p
	}
	if n := len(p.free); n > 0 {
		c.parked.slot = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		if c.parked.slot = p.used; p.used%slotPage == 0 {
			p.slots = append(p.slots, new([slotPage]slot))
		}
		p.used++
	}
	p.slot(c.parked.slot).c = c
	return true
}

// control tells the kernel what is asked for c; p.mu is held.
func (p *Parker) control(c *Conn) bool {
	k := &c.parked
	ev := syscall.EpollEvent{Events: eventsWatch, Fd: k.slot, Pad: p.slot(k.slot).generation}
	switch {
	case k.wired != nil && k.out:
		ev.Events = eventsWired | syscall.EPOLLOUT
	case k.wired != nil:
		ev.Events = eventsWired
	case k.ready != nil:
		ev.Events = eventsPark
	}
	op := syscall.EPOLL_CTL_MOD
	if !k.added {
		op = syscall.EPOLL_CTL_ADD
	}
	if !p.ctl(c, op, ev) {
		return false
	}
	k.added = true
	return true
}

// ctl is epoll_ctl(2). That of a sock takes no memory.
func (p *Parker) ctl(c *Conn, op int, ev syscall.EpollEvent) bool {
	var failed syscall.Errno
	if s, ok := c.nc.(*sock); ok {
		err := rawSock{s}.Control(func(fd uintptr) { failed = sysEpollCtl(p.ep, op, int(fd), &ev) })
		return err == nil && failed == 0
	}
	return p.ctlRaw(c, op, ev)
}

func (p *Parker) ctlRaw(c *Conn, op int, ev syscall.EpollEvent) bool {
	var failed syscall.Errno
	err := c.raw.Control(func(fd uintptr) { failed = sysEpollCtl(p.ep, op, int(fd), &ev) })
	return err == nil && failed == 0
}

// drop frees the slot of c; p.mu is held. A descriptor that is about to be
// closed need not be deleted: the kernel does it.
func (p *Parker) drop(c *Conn, del bool) {
	k := &c.parked
	if del && k.added {
		p.ctl(c, syscall.EPOLL_CTL_DEL, syscall.EpollEvent{})
	}
	s := p.slot(k.slot)
	s.c = nil
	s.generation++
	p.free = append(p.free, k.slot)
	*k = parked{}
	c.parker.Store(nil)
}

// unparkClosed is called by Conn.Close before the descriptor is closed. It
// returns what is to be called afterwards, for a Conn that was parked.
func (c *Conn) unparkClosed() (ready func()) {
	p := c.parker.Load()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parker.Load() == p {
		f, r := c.parked.ready, c.parked.wired
		if r != nil {
			f = func() { r.closed(c) }
		}
		switch {
		case f == nil:
		case p.over:
			ready = func() { p.call(c, f) }
		default:
			p.run.Add(1)
			ready = func() { p.ready(c, f) }
		}
		p.drop(c, false)
	}
	return ready
}
