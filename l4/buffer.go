// SPDX-License-Identifier: Apache-2.0

package l4

import "sync"

// DefaultBufferBytes is the size of the buffers of a BufferPool whose Size
// is zero.
//
// It is for package l7: see "Machinery" in the package documentation.
const DefaultBufferBytes = 16 << 10

// A Buffer is memory borrowed from a BufferPool. B[:cap(B)] is all of it; the borrower
// may set its length.
//
// It is for package l7: see "Machinery" in the package documentation.
type Buffer struct {
	B []byte
}

// A BufferPool lends buffers of one size and keeps returned ones for later. It belongs to
// a Server, a Proxy or a Transport and has the same lifetime; the zero value is ready to
// use. Its methods may be called at once by many goroutines. The garbage collector may
// free buffers that are not borrowed.
//
// It is for package l7: see "Machinery" in the package documentation.
type BufferPool struct {
	Size int // bytes of a buffer; 0 (or less) means DefaultBufferBytes; must not change after the first Get

	free sync.Pool
}

// Get borrows a buffer. The length of B is the pool's size, its content is
// arbitrary.
func (p *BufferPool) Get() *Buffer {
	if b, ok := p.free.Get().(*Buffer); ok {
		b.B = b.B[:cap(b.B)]
		return b
	}
	return &Buffer{B: make([]byte, p.size())}
}

func (p *BufferPool) size() int {
	if p.Size <= 0 {
		return DefaultBufferBytes
	}
	return p.Size
}

// Put gives a buffer back; its borrower must not use it any longer.
// Nil is ignored, and so is a buffer whose B was replaced by another size.
func (p *BufferPool) Put(b *Buffer) {
	if b == nil {
		return
	}
	if cap(b.B) == p.size() {
		p.free.Put(b)
	}
}
