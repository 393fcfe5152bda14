// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"github.com/penstock-lb/penstock/l4"
)

// An h2Inbox is the part of a stream's body that has been received and not yet
// read. It is guarded by the mu of the link.
type h2Inbox struct {
	bufs []*l4.Buffer
	pos  int           // in the first buffer
	few  [2]*l4.Buffer // initial array of bufs
}

// put appends a copy of a piece.
func (b *h2Inbox) put(p []byte, pool *l4.BufferPool) {
	for len(p) > 0 {
		var last *l4.Buffer
		if n := len(b.bufs); n > 0 && len(b.bufs[n-1].B) < cap(b.bufs[n-1].B) {
			last = b.bufs[n-1]
		} else {
			if b.bufs == nil {
				b.bufs = b.few[:0]
			}
			last = pool.Get()
			last.B = last.B[:0]
			b.bufs = append(b.bufs, last)
		}
		n := min(len(p), cap(last.B)-len(last.B))
		last.B = append(last.B, p[:n]...)
		p = p[n:]
	}
}

// first returns the first bytes to read, nil if there are none. They stay valid
// until skip.
func (b *h2Inbox) first() []byte {
	if len(b.bufs) == 0 {
		return nil
	}
	return b.bufs[0].B[b.pos:]
}

// skip removes the first n bytes.
func (b *h2Inbox) skip(n int, pool *l4.BufferPool) {
	if b.pos += n; b.pos == len(b.bufs[0].B) {
		pool.Put(b.bufs[0])
		b.bufs = append(b.bufs[:0], b.bufs[1:]...)
		b.pos = 0
	}
}

// drop discards everything and returns how many bytes that was.
func (b *h2Inbox) drop(pool *l4.BufferPool) (n int64) {
	for _, f := range b.bufs {
		n += int64(len(f.B))
		pool.Put(f)
	}
	n -= int64(b.pos)
	b.bufs, b.pos = b.bufs[:0], 0
	return n
}
