// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"io"

	"github.com/quic-go/quic-go"
)

// body is the body of a request.
type body struct {
	s    *stream
	left int64 // bytes of the DATA frame that is being read
	more int64 // bytes left of the Content-Length; -1 without one
	done error // the end
}

// Read implements [io.Reader]. It belongs to one goroutine.
func (b *body) Read(p []byte) (int, error) {
	if b.done != nil {
		return 0, b.done
	}
	if len(p) == 0 {
		return 0, nil
	}
	b.s.w.sendContinue()
	for b.left == 0 {
		if err := b.next(); err != nil {
			b.done = b.s.failed(err)
			return 0, b.done
		}
	}
	n, err := b.s.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.more >= 0 {
		b.more -= int64(n)
	}
	if err != nil {
		b.done = b.s.failed(whole(err))
	}
	return n, b.done
}

// next reads up to the next byte of the body.
func (b *body) next() error {
	in := &b.s.in
	kind, n, err := in.frame()
	switch {
	case err == io.EOF && b.more > 0:
		return malformed("the body is shorter than its Content-Length")
	case err != nil:
		return err
	case kind == frameData:
		if b.left = int64(n); n > 1<<62-1 || b.more >= 0 && b.left > b.more {
			return malformed("the body is longer than its Content-Length")
		}
		if n == 0 {
			return b.s.c.glitch(glitchEmpty)
		}
		return nil
	case kind == frameHeaders:
		if b.more > 0 {
			return malformed("the body is shorter than its Content-Length")
		}
		return b.trailer(n)
	}
	return b.s.skip(kind, n)
}

// trailer reads the trailer and what follows it. It returns io.EOF.
func (b *body) trailer(n uint64) error {
	s := b.s
	limit := s.c.f.sizes()
	if limit.bytes > 0 && n > uint64(limit.bytes) {
		return &fault{code: codeExcessiveLoad, reason: "trailer too long"}
	}
	block, err := s.in.block(int(n))
	if err != nil {
		return err
	}
	t := section{trailer: true}
	if f := t.decode(block, limit); f != nil {
		f.status = 0
		return f
	}
	s.r.Trailer = t.header
	for {
		kind, n, err := s.in.frame()
		if err != nil {
			return err
		}
		if kind == frameData || kind == frameHeaders {
			return ofConn(codeFrameUnexpected, "a frame after the trailer") // RFC 9114, section 4.1
		}
		if err := s.skip(kind, n); err != nil {
			return err
		}
	}
}

// Close implements [io.Closer]: the rest is not needed. It may be called while another
// goroutine reads.
func (b *body) Close() error {
	b.s.str.CancelRead(quic.StreamErrorCode(codeNoError)) // RFC 9114, section 4.1
	return nil
}
