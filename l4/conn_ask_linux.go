// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// An asking is the state of Ask between the calls of its function.
type asking struct {
	req    []byte
	look   bool
	posted posting // the write of req
	asked  bool    // all of it is written, and the answer is awaited
	polled *polled // knows whether there is anything to read; nil if that has to be found out
}

// ask looks, writes, and from then on reads; false means wait.
func (in *input) ask(fd uintptr) bool {
	a := &in.asking
	if a.asked {
		return in.read(fd)
	}
	unasked := a.posted.unasked
	if a.posted.answer != nil && !unasked {
		return in.put() || in.read(fd)
	}
	a.posted = posting{
		call:  call{fd: int(fd), writes: true, p: a.req[:min(len(a.req), maxSyscall)]},
		looks: a.look || a.polled == nil || a.polled.in.may,
	}
	if a.polled != nil && len(a.req) <= maxWrite && !unasked {
		a.posted.answer = &a.polled.in
		a.polled.poller.outbox.post(&a.posted)
		return false
	}
	if a.posted.looks {
		look := a.posted.look()
		look.do()
		a.posted.looked(&look)
	}
	if !a.posted.spoke {
		a.posted.do()
	}
	return in.put()
}

// put accounts for the write; false means wait for the answer.
func (in *input) put() bool {
	w := &in.posted
	switch {
	case w.spoke:
		in.err = ErrNotQuiet
		return true
	case w.errno == syscall.EAGAIN:
		return true
	case w.errno != 0:
		in.err = w.errno
		return true
	}
	in.asked = w.n == len(in.req)
	return !in.asked
}

func (c *Conn) askRaw(req []byte, look bool, p *BufferPool) (*Buffer, int, error) {
	w := c.input()
	if w.step == nil {
		w.step = w.ask
	}
	w.req, w.look, w.pool = req, look, p
	if s, ok := c.nc.(*sock); ok {
		w.polled = s.polled()
	}
	done, err := c.doSock(w.step, operation{in: &w.intake})
	if !done {
		err = c.raw.Read(w.step)
	}
	in, sent := w.intake, w.posted.n
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
