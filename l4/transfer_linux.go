// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"io"
	"syscall"
)

// A moving is a Transfer under way. Its functions are given to RawConns.
type moving struct {
	pipe *pipe
	left int64 // to be read from the source
	n    int64 // moved in the last step
	err  error
}

func transferRaw(dst, src *Conn, n int64, before func(c *Conn)) (moved int64, err error) {
	m := &moving{pipe: newPipe(), left: n}
	if m.pipe == nil {
		return 0, errors.ErrUnsupported // no descriptors left
	}
	defer m.pipe.close()
	for moved < n {
		if m.pipe.n == 0 {
			err = m.step(src, src.raw.Read, m.take, before)
			m.left -= m.n
			m.pipe.n += int(m.n)
		} else {
			err = m.step(dst, dst.raw.Write, m.give, before)
			m.pipe.n -= int(m.n)
			moved += m.n
		}
		if err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// step does one splice, waiting if need be.
func (m *moving) step(c *Conn, wait func(func(fd uintptr) bool) error, do func(fd uintptr) bool, before func(*Conn)) error {
	if before != nil {
		before(c)
	}
	m.n, m.err = 0, nil
	if err := wait(do); err != nil {
		return err
	}
	return m.err
}

// take moves from the source into the pipe; false means wait.
func (m *moving) take(fd uintptr) bool {
	return m.splice(int(fd), m.pipe.w, int(min(m.left, pipeBytes)))
}

// give moves from the pipe to the destination.
func (m *moving) give(fd uintptr) bool {
	return m.splice(m.pipe.r, int(fd), m.pipe.n)
}

func (m *moving) splice(from, to, n int) bool {
	k, errno := sysSplice(uintptr(from), uintptr(to), n)
	switch {
	case errno == syscall.EAGAIN:
		return false
	case errno != 0:
		m.err = errno
	case k == 0:
		m.err = io.EOF
	}
	m.n = int64(max(k, 0))
	return true
}
