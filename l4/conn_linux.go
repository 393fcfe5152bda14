// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
)

// maxSyscall is the most bytes that one read or write moves. These calls do not tell the
// scheduler that the thread is busy, so they have to be short.
const maxSyscall = 64 << 10

// An intake is one read: where it goes to, and what came of it.
type intake struct {
	p      []byte      // read into this,
	pool   *BufferPool // or if this is set into a buffer borrowed from it,
	buf    *Buffer
	pipe   *pipe // or into this
	n      int
	err    error
	room   bool // the read was shorter than it could have been
	waited bool // it has looked in vain
}

// sendMore is MSG_MORE of send(2).
const sendMore = 0x8000

// An outgo is one write.
type outgo struct {
	p     []byte  // what is left to write,
	flags uintptr // with these flags of send(2),
	pipe  *pipe   // or is written if set
	err   error
}

// input and output are the arguments and results of the functions given to the RawConn.
// They are fields, not captured variables, and the functions are made once, so that reads
// and writes allocate nothing. A Conn makes them at the first call that cannot do without:
// one over a sock that never waits has none.
type input struct {
	intake
	asking
	ready func(fd uintptr) bool
	step  func(fd uintptr) bool // of Ask; made by the first
	now   func(fd uintptr)      // reads once
}

type output struct {
	outgo
	ready func(fd uintptr) bool
	now   func(fd uintptr) // writes what goes without waiting
}

func (c *Conn) input() *input {
	if c.in == nil {
		in := new(input)
		in.ready, in.now = in.read, in.readNow
		c.in = in
	}
	return c.in
}

func (c *Conn) output() *output {
	if c.out == nil {
		out := new(output)
		out.ready, out.now = out.write, out.writeNow
		c.out = out
	}
	return c.out
}

// openRaw sets c.raw if the bare connection is a socket of the net package itself. A type
// that embeds one may have its own Read, which must not be bypassed.
func (c *Conn) openRaw() {
	switch nc := c.nc.(type) {
	case *net.TCPConn:
		c.raw, _ = nc.SyscallConn()
	case *sock:
		c.raw = rawSock{nc}
	case *net.UnixConn:
		if a := nc.LocalAddr(); a == nil || a.Network() == "unix" {
			c.raw, _ = nc.SyscallConn()
		}
	}
}

// isUnix reports whether c is a Unix socket: a read of one ends early at a message that has
// descriptors with it.
func (c *Conn) isUnix() bool {
	switch nc := c.nc.(type) {
	case *sock:
		return nc.unix
	case *net.UnixConn:
		return true
	}
	return false
}

// read reads once; false means wait.
func (in *intake) read(fd uintptr) bool {
	p := in.begin()
	n, errno := sysRead(fd, p)
	return in.end(len(p), n, errno)
}

// begin returns what to read into, and end accounts for that; false means wait.
func (in *intake) begin() []byte {
	p := in.p
	if in.pool != nil {
		in.buf = in.pool.Get()
		p = in.buf.B
	}
	return p[:min(len(p), maxSyscall)]
}

func (in *intake) end(size, n int, errno syscall.Errno) bool {
	if errno == 0 && n > 0 {
		in.n, in.room = n, n < size
		return true
	}
	if in.buf != nil {
		in.pool.Put(in.buf)
		in.buf = nil
	}
	switch {
	case errno == syscall.EAGAIN:
		in.waited = true
		return false
	case errno != 0:
		in.err = errno
	default:
		in.err = io.EOF
	}
	return true
}

// isShort reports whether it reads at most so many bytes, and into memory.
func (in *intake) isShort(most int) bool {
	if in.pool != nil {
		return in.pool.size() <= most
	}
	return in.pipe == nil && len(in.p) <= most
}

// readRaw reads into p, and reports whether it has waited or given way first.
func (c *Conn) readRaw(p []byte) (n int, waited bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	n, _, waited, err = c.readIn(intake{p: p})
	return n, waited, err
}

func (c *Conn) readRawBuffer(p *BufferPool) (*Buffer, error) {
	n, b, _, err := c.readIn(intake{pool: p})
	if b != nil {
		b.B = b.B[:n]
	}
	return b, err
}

// Yielding to other goroutines pays off if it saves a useless call at least every third
// time. maxCredit bounds how long a connection keeps yielding after that has stopped to
// pay off. A connection without credit tries again once in tryAgain reads.
const (
	creditGain = 2
	maxCredit  = 8
	tryAgain   = 32
)

// yields says whether a read is to give way to other goroutines first.
type yields struct {
	drained bool // the last read took all there was
	credit  int8 // of giving way: what it has gained less what it has cost
	skip    int8 // reads to go until it is tried without
}

// readIn does one read. If the last one took everything, the next one would most likely
// find nothing. So it lets other goroutines run first: data that arrives meanwhile saves a
// useless call and the way through the poller. It does so only while that helps.
func (c *Conn) readIn(in intake) (int, *Buffer, bool, error) {
	y := &c.yields
	switch {
	case !y.drained:
		return c.readWith(in, true)
	case y.credit > 0:
	case y.skip > 0:
		y.skip--
		return c.readWith(in, true)
	default:
		y.skip = tryAgain - 1
	}
	runtime.Gosched()
	n, b, waited, err := c.readWith(in, false)
	if err == nil && !waited {
		y.credit = min(y.credit+creditGain, maxCredit)
	} else if y.credit > 0 {
		y.credit--
	}
	return n, b, true, err
}

// doSock is do of the sock that c is over. If done is false, there is none, or that has to go
// through the runtime's poller: c.raw does.
func (c *Conn) doSock(f func(fd uintptr) bool, op operation) (done bool, err error) {
	s, ok := c.nc.(*sock)
	if !ok {
		return false, nil
	}
	w, err := s.do(f, op)
	return w == nil, err
}

// readWith reads at once, or waits; with idle also if it is known that a read would find
// nothing.
func (c *Conn) readWith(in intake, idle bool) (n int, b *Buffer, waited bool, err error) {
	done, err := c.doSock(in.read, operation{in: &in, idle: idle})
	if !done {
		w := c.input()
		w.intake = in
		err = c.raw.Read(w.ready)
		in, w.intake = w.intake, intake{}
	}
	return c.took(in, err)
}

// took accounts for a read that has ended with err, or with that of in.
func (c *Conn) took(in intake, err error) (int, *Buffer, bool, error) {
	if in.n > 0 {
		c.yields.drained = in.room
	}
	if err == nil {
		err = in.err
	}
	if err != nil {
		err = c.opError("read", err)
	}
	c.tookIn(in.n, err)
	return in.n, in.buf, in.waited, err
}

// write writes until all is written or the socket is full; false means wait.
func (out *outgo) write(fd uintptr) bool {
	for len(out.p) > 0 {
		n, errno := sysWrite(fd, out.p[:min(len(out.p), maxSyscall)], out.flags)
		switch {
		case errno == syscall.EAGAIN:
			return false
		case errno != 0:
			out.err = errno
			return true
		}
		out.p = out.p[n:]
	}
	return true
}

func (c *Conn) writeRaw(p []byte, more bool) (n int, err error) {
	out := outgo{p: p}
	if more || c.flags.has(moreFollows) {
		out.flags = sendMore
	}
	done, err := c.doSock(out.write, operation{writes: true})
	if !done {
		w := c.output()
		w.outgo = out
		err = c.raw.Write(w.ready)
		out, w.outgo = w.outgo, outgo{}
	}
	if err == nil {
		err = out.err
	}
	if n = len(p) - len(out.p); n > 0 {
		c.bytesWritten.Add(int64(n))
	}
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

// readNow reads once without waiting, into p or the pipe: 0 and nil is the end
// of the stream, syscall.EAGAIN means that there is nothing.
func (c *Conn) readNow(p []byte, pipe *pipe) (int, error) {
	in := intake{p: p, pipe: pipe}
	var err error
	if s, ok := c.nc.(*sock); ok {
		err = rawSock{s}.Control(in.readNow)
	} else {
		w := c.input()
		w.intake = in
		err = c.raw.Control(w.now)
		in, w.intake = w.intake, intake{}
	}
	if err == nil {
		err = in.err
	}
	if in.n > 0 {
		c.bytesRead.Add(int64(in.n))
	}
	return in.n, err
}

func (c *Conn) tryReadRaw(p *BufferPool) (*Buffer, error) {
	b := p.Get()
	n, err := c.readNow(b.B[:min(len(b.B), maxSyscall)], nil)
	if n > 0 {
		b.B = b.B[:n]
		return b, nil
	}
	p.Put(b)
	switch err {
	case syscall.EAGAIN:
		return nil, nil
	case nil:
		err = io.EOF
	}
	c.flags.set(peerGone)
	return nil, c.opError("read", err)
}

func (in *intake) readNow(fd uintptr) {
	var errno syscall.Errno
	if in.pipe != nil {
		in.n, errno = in.pipe.take(fd)
	} else {
		in.n, errno = sysRead(fd, in.p)
	}
	if errno != 0 {
		in.n, in.err = 0, errno
	}
}

// writeNow writes as much of p or the pipe as it can without waiting; the error is
// syscall.EAGAIN if some is left. more says that more of p, or the end, follows at once.
func (c *Conn) writeNow(p []byte, pipe *pipe, more bool) (n int, err error) {
	out := outgo{p: p, pipe: pipe}
	if more {
		out.flags = sendMore
	}
	if pipe != nil {
		n = pipe.n
	}
	if s, ok := c.nc.(*sock); ok {
		err = rawSock{s}.Control(out.writeNow)
	} else {
		w := c.output()
		w.outgo = out
		err = c.raw.Control(w.now)
		out, w.outgo = w.outgo, outgo{}
	}
	if pipe != nil {
		n -= pipe.n
	} else {
		n = len(p) - len(out.p)
	}
	if err == nil {
		err = out.err
	}
	if n > 0 {
		c.bytesWritten.Add(int64(n))
	}
	return n, err
}

func (out *outgo) writeNow(fd uintptr) {
	if out.pipe == nil {
		if !out.write(fd) {
			out.err = syscall.EAGAIN
		}
		return
	}
	for out.pipe.n > 0 {
		n, errno := out.pipe.give(fd)
		if errno != 0 {
			out.err = errno
			return
		}
		out.pipe.n -= n
	}
}

func hasNoPeer(fd uintptr) bool {
	_, err := syscall.Getpeername(int(fd))
	return err == syscall.ENOTCONN
}

// opError gives err the form that package net gives it.
func (c *Conn) opError(op string, err error) error {
	var known *net.OpError
	switch {
	case err == io.EOF || err == ErrNotQuiet:
		return err
	case errors.As(err, &known):
		err = known.Err
	default:
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	return &net.OpError{Op: op, Net: c.nc.LocalAddr().Network(), Source: c.nc.LocalAddr(), Addr: c.nc.RemoteAddr(), Err: err}
}
