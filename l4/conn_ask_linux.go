// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// An asking is the state of Ask between the calls of its function.
type asking struct {
	req    []byte
	sent   int     // bytes of req written
	asked  bool    // all of it is, and the answer is awaited
	polled *polled // knows whether there is anything to read; nil if that has to be found out
	queued bool    // req is left to asks
	errno  syscall.Errno
	probe  [1]byte
}

// ask looks, writes, and from then on reads; false means wait.
func (in *input) ask(fd uintptr) bool {
	a := &in.asking
	if a.asked {
		return in.read(fd)
	}
	if a.queued {
		return in.put(a.sent, a.errno) || in.read(fd)
	}
	if a.polled == nil || a.polled.in.may {
		if _, errno := sysRead(fd, a.probe[:]); errno != syscall.EAGAIN {
			in.err = ErrNotQuiet
			return true
		}
	}
	if a.polled != nil && len(a.req) <= maxWrite {
		a.queued = true
		a.polled.poller.asks.add(a)
		return false
	}
	return in.put(sysWrite(fd, a.req[:min(len(a.req), maxSyscall)], 0))
}

// put accounts for the write; false means wait for the answer.
func (in *input) put(n int, errno syscall.Errno) bool {
	switch {
	case errno == syscall.EAGAIN:
		return true
	case errno != 0:
		in.err = errno
		return true
	}
	in.sent = n
	in.asked = n == len(in.req)
	return !in.asked
}

// written is put for what has been left to asks.
func (a *asking) written(n int, errno syscall.Errno) {
	a.sent, a.errno = n, errno
	a.polled.in.written(n == len(a.req))
}

func (c *Conn) askRaw(req []byte, look bool, p *BufferPool) (*Buffer, int, error) {
	w := c.input()
	if w.step == nil {
		w.step = w.ask
	}
	w.req, w.pool = req, p
	if s, ok := c.nc.(*sock); ok && !look {
		w.polled = s.polled()
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
