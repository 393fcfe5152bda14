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

// input and output are the arguments and results of the functions given to
// the RawConn. They are fields, not captured variables, and the functions are
// made once, so that reads and writes allocate nothing.
type input struct {
	ready func(fd uintptr) bool
	now   func(fd uintptr) // reads once into p; made when the Conn is wired
	p     []byte           // read into this,
	pool  *BufferPool      // or if this is set into a buffer borrowed from it
	buf   *Buffer
	pipe  *pipe // or into this
	n     int
	err   error

	drained bool // the last read took all there was
	waited  bool // one has looked in vain
	credit  int8 // of giving way: what it has gained less what it has cost
	skip    int8 // reads to go until it is tried without
}

// sendMore is MSG_MORE of send(2).
const sendMore = 0x8000

type output struct {
	ready func(fd uintptr) bool
	now   func(fd uintptr) // writes what goes without waiting
	p     []byte           // what is left to write,
	flags uintptr          // with these flags of send(2),
	pipe  *pipe            // or is written if set
	err   error
}

// openRaw sets c.raw if the bare connection is a socket of the net package itself. A type
// that embeds one may have its own Read, which must not be bypassed.
func (c *Conn) openRaw() {
	switch nc := c.nc.(type) {
	case *net.TCPConn:
		c.raw, _ = nc.SyscallConn()
	case *sock:
		c.raw = quickSock{rawSock{nc}}
	case *net.UnixConn:
		if a := nc.LocalAddr(); a == nil || a.Network() == "unix" {
			c.raw, _ = nc.SyscallConn()
		}
	}
	if c.raw != nil {
		c.in.ready = c.readable
		c.out.ready = c.writable
	}
}

// readable reads once; false means wait.
func (c *Conn) readable(fd uintptr) bool {
	in := &c.in
	p := in.p
	if in.pool != nil {
		in.buf = in.pool.Get()
		p = in.buf.B
	}
	p = p[:min(len(p), maxSyscall)]
	n, errno := sysRead(fd, p)
	if errno == 0 && n > 0 {
		in.n, in.drained = n, n < len(p)
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

func (c *Conn) readRaw(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.p = p
	n, _, err := c.readIn()
	return n, err
}

func (c *Conn) readRawBuffer(p *BufferPool) (*Buffer, error) {
	c.in.pool = p
	n, b, err := c.readIn()
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

// readIn does what c.in asks for, and clears it. If the last read took everything, the
// next one would most likely find nothing. So it lets other goroutines run first: data
// that arrives meanwhile saves a useless call and the way through the poller. It does so
// only while that helps.
func (c *Conn) readIn() (int, *Buffer, error) {
	in := &c.in
	switch {
	case !in.drained:
		return c.readWith(in.ready)
	case in.credit > 0:
	case in.skip > 0:
		in.skip--
		return c.readWith(in.ready)
	default:
		in.skip = tryAgain - 1
	}
	runtime.Gosched()
	in.waited = false
	n, b, err := c.readWith(in.ready)
	if err == nil && !in.waited {
		in.credit = min(in.credit+creditGain, maxCredit)
	} else if in.credit > 0 {
		in.credit--
	}
	return n, b, err
}

func (c *Conn) readWith(ready func(fd uintptr) bool) (int, *Buffer, error) {
	in := &c.in
	err := c.raw.Read(ready)
	n, b := in.n, in.buf
	if err == nil {
		err = in.err
	}
	in.p, in.pool, in.buf, in.n, in.err = nil, nil, nil, 0, nil
	if err != nil {
		err = c.opError("read", err)
	}
	c.tookIn(n, err)
	return n, b, err
}

// writable writes until all is written or the socket is full; false means wait.
func (c *Conn) writable(fd uintptr) bool {
	out := &c.out
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

func (c *Conn) writeRaw(p []byte, more bool) (int, error) {
	out := &c.out
	if out.p = p; more || c.more.Load() {
		out.flags = sendMore
	}
	err := c.raw.Write(out.ready)
	n := len(p) - len(out.p)
	if err == nil {
		err = out.err
	}
	out.p, out.flags, out.err = nil, 0, nil
	if n > 0 {
		c.bytesWritten.Add(int64(n))
	}
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

// prepareNow goes before the first readNow or writeNow.
func (c *Conn) prepareNow() {
	if c.in.now == nil {
		c.in.now, c.out.now = c.readOnce, c.writeOnce
	}
}

// readNow reads once without waiting, into p or the pipe: 0 and nil is the end
// of the stream, syscall.EAGAIN means that there is nothing.
func (c *Conn) readNow(p []byte, pipe *pipe) (int, error) {
	in := &c.in
	in.p, in.pipe = p, pipe
	err := c.raw.Control(in.now)
	n := in.n
	if err == nil {
		err = in.err
	}
	in.p, in.pipe, in.n, in.err = nil, nil, 0, nil
	if n > 0 {
		c.bytesRead.Add(int64(n))
	}
	return n, err
}

func (c *Conn) tryReadRaw(p *BufferPool) (*Buffer, error) {
	c.prepareNow()
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
	c.gone.Store(true)
	return nil, c.opError("read", err)
}

func (c *Conn) readOnce(fd uintptr) {
	in := &c.in
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
	out := &c.out
	if more {
		out.flags = sendMore
	}
	if out.p, out.pipe = p, pipe; pipe != nil {
		n = pipe.n
	}
	err = c.raw.Control(out.now)
	if pipe != nil {
		n -= pipe.n
	} else {
		n = len(p) - len(out.p)
	}
	if err == nil {
		err = out.err
	}
	out.p, out.flags, out.pipe, out.err = nil, 0, nil, nil
	if n > 0 {
		c.bytesWritten.Add(int64(n))
	}
	return n, err
}

func (c *Conn) writeOnce(fd uintptr) {
	out := &c.out
	if out.pipe == nil {
		if !c.writable(fd) {
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
