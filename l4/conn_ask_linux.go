// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// An asking is the state of Ask between the calls of its function.
type asking struct {
	req   []byte
	sent  int   // bytes of req written
	asked bool  // all of it is, and the answer is awaited
	knows *side // whether there is anything to read; nil if that has to be found out
	probe [1]byte
}

// ask looks, writes, and from then on reads; false means wait.
func (in *input) ask(fd uintptr) bool {
	a := &in.asking
	if a.asked {
		return in.read(fd)
	}
	if a.knows == nil || a.knows.may {
		if _, errno := sysRead(fd, a.probe[:]); errno != syscall.EAGAIN {
			in.err = ErrNotQuiet
			return true
		}
	}
	n, errno := sysWrite(fd, a.req[:min(len(a.req), maxSyscall)], 0)
	switch {
	case errno == syscall.EAGAIN:
		return true
	case errno != 0:
		in.err = errno
		return true
	}
	a.sent = n
	a.asked = n == len(a.req)
	return !a.asked
}

func (c *Conn) askRaw(req []byte, look bool, p *BufferPool) (*Buffer, int, error) {
	w := c.input()
	if w.step == nil {
		w.step = w.ask
	}
	w.req, w.pool = req, p
	if s, ok := c.nc.(*sock); ok && !look {
		if polled := s.polled(); polled != nil {
			w.knows = &polled.in
		}
	}
	done, err := c.doSock(w.step, operation{in: &w.intake})
	if !done {
		err = c.raw.Read(w.step)
	}
	in, sent := w.intake, w.sent
	w.intake, w.asking = intake{}, asking{}
	n, b, _, err := c.took(in, err)
	if b != nil {
		b.B = b.B[:n]
	}
	if sent > 0 {
		c.bytesWritten.Add(int64(sent))
	}
	return b, sent, err
}
