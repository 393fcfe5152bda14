// SPDX-License-Identifier: Apache-2.0

package l7

import "github.com/penstock-lb/penstock/l4"

// buffers are the buffer pools of a Server or an Upstream.
type buffers struct {
	short l4.BufferPool // of shortBuffer bytes
	pool  l4.BufferPool // of headBuffer bytes
	bulk  l4.BufferPool // of bulkBuffer bytes
}

func (b *buffers) setSizes() {
	b.short.Size, b.pool.Size, b.bulk.Size = shortBuffer, headBuffer, bulkBuffer
}

// giveBack returns buf, which may be nil, to the pool that it is from. It is not looked at
// after that, since it may have another owner by then.
func (b *buffers) giveBack(buf *l4.Buffer) {
	switch {
	case buf == nil:
	case cap(buf.B) == shortBuffer:
		b.short.Put(buf)
	case cap(buf.B) == headBuffer:
		b.pool.Put(buf)
	default:
		b.bulk.Put(buf) // which keeps only buffers of its size
	}
}

// fitting returns buf, or another for the next read of a body, after one of n bytes: a
// long one if they filled it. A body that comes slowly holds little memory.
func (b *buffers) fitting(buf *l4.Buffer, n int) *l4.Buffer {
	switch long := cap(buf.B) == bulkBuffer; {
	case !long && n == headBuffer-chunkRoomBefore-chunkRoomAfter:
		b.giveBack(buf)
		return b.bulk.Get()
	case long && n < headBuffer/4:
		b.giveBack(buf)
		return b.pool.Get()
	}
	return buf
}

// An input holds the bytes that have been read from a connection and not yet used.
// The zero value is empty and has no buffer. One goroutine at a time may use it.
type input struct {
	buf *l4.Buffer // nil if there is none
	pos int        // how many bytes of it have been used
}

// set replaces the buffer by b, which may be nil.
func (in *input) set(b *l4.Buffer) { in.buf, in.pos = b, 0 }

// bytes returns the unused bytes. They are valid until the next fill or release.
func (in *input) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.B[in.pos:]
}

func (in *input) empty() bool { return in.buf == nil || in.pos == len(in.buf.B) }

// use marks the next n bytes as used.
func (in *input) use(n int) { in.pos += n }

// full reports whether the last read filled the buffer.
func (in *input) full() bool { return len(in.buf.B) == cap(in.buf.B) }

// read reads once from c into a buffer of pool. There must be no buffer yet: an
// input without bytes holds none.
func (in *input) read(c *l4.Conn, pool *l4.BufferPool) error {
	b, err := c.ReadBuffer(pool)
	if err == nil {
		in.set(b)
	}
	return err
}

// fill reads once from c and appends to the unused bytes.
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

// fillBulk is fill for a message of which more is expected soon.
func (in *input) fillBulk(c *l4.Conn, b *buffers) error {
	if in.buf != nil && cap(in.buf.B) < bulkBuffer {
		in.grow(b)
	}
	return in.fill(c, b)
}

// compact moves the unused bytes to the beginning of the buffer.
func (in *input) compact() {
	if in.pos > 0 {
		in.buf.B = in.buf.B[:copy(in.buf.B, in.buf.B[in.pos:])]
		in.pos = 0
	}
}

// grow moves the unused bytes to a larger buffer.
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

// consumed releases the buffer if all of it has been used.
func (in *input) consumed(b *buffers) {
	if in.empty() {
		in.release(b)
	}
}

// release returns the buffer to its pool, used or not.
func (in *input) release(b *buffers) {
	buf := in.buf
	in.set(nil)
	b.giveBack(buf)
}
