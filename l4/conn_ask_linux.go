// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// An asking is the state of Ask between the calls of its function, which is
// made at the first Ask.
type asking struct {
	step  func(fd uintptr) bool
	req   []byte
	n     int  // bytes of req written
	asked bool // all of it is, and the answer is awaited
	probe [1]byte
}

// ask looks, writes, and from then on reads; false means wait.
func (c *Conn) ask(fd uintptr) bool {
	a := &c.asking
	if a.asked {
		return c.readable(fd)
	}
	switch _, errno := sysRead(fd, a.probe[:]); errno {
	case syscall.EAGAIN:
	default:
		c.in.err = ErrNotQuiet
		return true
	}
	n, errno := sysWrite(fd, a.req[:min(len(a.req), maxSyscall)], 0)
	switch {
	case errno == syscall.EAGAIN:
		return true
	case errno != 0:
		c.in.err = errno
		return true
	}
	a.n = n
	a.asked = n == len(a.req)
	return !a.asked
}

func (c *Conn) askRaw(req []byte, p *BufferPool) (*Buffer, int, error) {
	a := &c.asking
	if a.step == nil {
		a.step = c.ask
	}
	a.req = req
	c.in.pool = p
	n, b, err := c.readWith(a.step)
	if b != nil {
		b.B = b.B[:n]
	}
	sent := a.n
	a.req, a.n, a.asked = nil, 0, false
	if sent > 0 {
		c.bytesWritten.Add(int64(sent))
	}
	return b, sent, err
}
