// SPDX-License-Identifier: Apache-2.0

package l7

import "github.com/penstock-lb/penstock/l4"

// buffers are the memory that a Server or an Upstream reads into and writes from.
type buffers struct {
	pool l4.BufferPool // of headBuffer bytes
	bulk l4.BufferPool // of bulkBuffer bytes
}

func (b *buffers) setSizes() { b.pool.Size, b.bulk.Size = headBuffer, bulkBuffer }

// An input is what has been read from a connection and not been used yet. The zero
// value holds nothing, and no buffer. One goroutine at a time uses it.
type input struct {
	buf *l4.Buffer // nil if there is none
	pos int        // how much of it has been used
}

// set makes b, which may be nil, what has been read.
func (in *input) set(b *l4.Buffer) { in.buf, in.pos = b, 0 }

// bytes returns what has not been used. It is valid until the next fill or release.
func (in *input) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.B[in.pos:]
}

func (in *input) empty() bool { return in.buf == nil || in.pos == len(in.buf.B) }

// use takes n bytes off what bytes returns.
func (in *input) use(n int) { in.pos += n }

// full reports whether the last read took as much as there was room for.
func (in *input) full() bool { return len(in.buf.B) == cap(in.buf.B) }

// read reads once from c into a buffer of pool. There must be none: without bytes
// to read, none is held.
func (in *input) read(c *l4.Conn, pool *l4.BufferPool) error {
	b, err := c.ReadBuffer(pool)
	if err == nil {
		in.set(b)
	}
	return err
}

// fill reads once from c, behind the bytes there are.
func (in *input) fill(c *l4.Conn, b *buffers) error {
	if in.buf == nil {
		return in.read(c, &b.pool)
	}
	if in.compact(); in.full() {
		in.grow(b)
	}
	buf := in.buf
	n, err := c.Read(buf.B[len(buf.B):cap(buf.B)])
	if buf.B = buf.B[:len(buf.B)+n]; n > 0 {
		return nil // the next read returns the error again
	}
	return err
}

// fillBulk is fill where a part of something means that more of it is under way.
func (in *input) fillBulk(c *l4.Conn, b *buffers) error {
	if in.buf != nil && cap(in.buf.B) < bulkBuffer {
		in.grow(b)
	}
	return in.fill(c, b)
}

// compact moves the bytes to the beginning of the buffer.
func (in *input) compact() {
	if in.pos > 0 {
		in.buf.B = in.buf.B[:copy(in.buf.B, in.buf.B[in.pos:])]
		in.pos = 0
	}
}

// grow moves the bytes to a larger buffer.
func (in *input) grow(b *buffers) {
	var big *l4.Buffer
	if cap(in.buf.B) < bulkBuffer {
		big = b.bulk.Get()
	} else {
		big = &l4.Buffer{B: make([]byte, 0, 2*cap(in.buf.B))}
	}
	big.B = append(big.B[:0], in.bytes()...)
	in.release(b)
	in.set(big)
}

// consumed gives the buffer back if all of it has been used.
func (in *input) consumed(b *buffers) {
	if in.empty() {
		in.release(b)
	}
}

// release gives the buffer back, used or not.
func (in *input) release(b *buffers) {
	buf := in.buf
	in.set(nil)
	switch {
	case buf == nil:
	case cap(buf.B) == headBuffer:
		b.pool.Put(buf) // once: from here on it is somebody else's
	default:
		b.bulk.Put(buf) // which takes only what is of its size
	}
}
