// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/quic-go/quic-go/quicvarint"
)

// A frame type (RFC 9114, section 7.2).
const (
	frameData           = 0x0
	frameHeaders        = 0x1
	frameCancelPush     = 0x3
	frameSettings       = 0x4
	framePushPromise    = 0x5
	frameGoAway         = 0x7
	frameMaxPushID      = 0xd
	framePriority       = 0xf0700 // PRIORITY_UPDATE (RFC 9218)
	framePriorityOfPush = 0xf0701
)

// A code is an error code of a stream or connection (RFC 9114, section 8.1, and RFC
// 9204, section 6).
type code uint64

const (
	codeNoError         code = 0x100
	codeInternal        code = 0x102
	codeStreamCreation  code = 0x103
	codeClosedCritical  code = 0x104
	codeFrameUnexpected code = 0x105
	codeFrame           code = 0x106
	codeExcessiveLoad   code = 0x107
	codeID              code = 0x108
	codeSettings        code = 0x109
	codeMissingSettings code = 0x10a
	codeRejected        code = 0x10b
	codeCancelled       code = 0x10c
	codeIncomplete      code = 0x10d
	codeMessage         code = 0x10e
	codeConnect         code = 0x10f
	codeQPACK           code = 0x200
	codeQPACKEncoder    code = 0x201
	codeQPACKDecoder    code = 0x202
)

// A fault is what a client has done wrong.
type fault struct {
	code   code
	reason string
	whole  bool // it ends the connection, not only the stream
	status int  // of the reply; 0 means a reset
}

func (f *fault) Error() string { return fmt.Sprintf("h3: %s (%#x)", f.reason, uint64(f.code)) }

// ofConn returns a fault that ends the connection.
func ofConn(c code, reason string) *fault { return &fault{code: c, reason: reason, whole: true} }

// malformed returns the fault of a malformed message (RFC 9114, section 4.1.2).
func malformed(reason string) *fault { return &fault{code: codeMessage, reason: reason} }

const inputSize = 2 << 10 // most heads fit

// An input reads a stream through a small buffer.
type input struct {
	from io.Reader
	buf  []byte
	r, w int
	err  error // the end; not a deadline
}

// fill reads more. It returns an error only if there is none.
func (in *input) fill() error {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if in.err != nil {
		return in.err
	}
	n, err := in.from.Read(in.buf[in.w:])
	in.w += n
	return in.note(n, err)
}

// note keeps the end, and returns err if nothing was read.
func (in *input) note(n int, err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		in.err = err
	}
	if n > 0 {
		return nil
	}
	return err
}

// ended reports whether everything has been read, and well.
func (in *input) ended() bool { return in.r == in.w && in.err == io.EOF }

// ReadByte implements [io.ByteReader].
func (in *input) ReadByte() (byte, error) {
	for in.r == in.w {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	in.r++
	return in.buf[in.r-1], nil
}

// Read implements [io.Reader]. A long p is read into directly.
func (in *input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if in.r == in.w {
		if in.err != nil {
			return 0, in.err
		}
		if len(p) >= len(in.buf) {
			n, err := in.from.Read(p)
			return n, in.note(n, err)
		}
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	return n, nil
}

// whole is io.EOF as an error inside a frame.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// frame reads the type and length of a frame. The error is io.EOF only between frames.
func (in *input) frame() (kind, length uint64, err error) {
	if kind, err = quicvarint.Read(in); err != nil {
		return 0, 0, err
	}
	length, err = quicvarint.Read(in)
	return kind, length, whole(err)
}

// block reads the n bytes of a frame. They are valid until the next read.
func (in *input) block(n int) ([]byte, error) {
	if n <= len(in.buf) {
		if in.r+n > len(in.buf) {
			in.w = copy(in.buf, in.buf[in.r:in.w])
			in.r = 0
		}
		for in.w-in.r < n {
			if err := in.fill(); err != nil {
				return nil, whole(err)
			}
		}
		in.r += n
		return in.buf[in.r-n : in.r], nil
	}
	const piece = 8 << 10 // memory follows the bytes that have come, not the length that was announced
	b := make([]byte, 0, piece)
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(b, make([]byte, min(len(b), n-len(b)))...)[:len(b)]
		}
		m, err := in.Read(b[len(b):min(cap(b), n)])
		b = b[:len(b)+m]
		if err != nil {
			return nil, whole(err)
		}
	}
	return b, nil
}

// discard skips the n bytes of a frame.
func (in *input) discard(n uint64) error {
	for n > 0 {
		if in.r == in.w {
			if err := in.fill(); err != nil {
				return whole(err)
			}
		}
		m := int(min(n, uint64(in.w-in.r)))
		in.r += m
		n -= uint64(m)
	}
	return nil
}

// unexpected returns the fault of a frame that must not be on a request stream, and nil
// for one of an unknown type, which is skipped (RFC 9114, sections 7.2.8 and 9).
func unexpected(kind uint64) *fault {
	switch kind {
	case frameCancelPush, frameSettings, framePushPromise, frameGoAway, frameMaxPushID, framePriority, framePriorityOfPush:
		return ofConn(codeFrameUnexpected, fmt.Sprintf("frame %#x on a request stream", kind))
	case 0x2, 0x6, 0x8, 0x9: // of HTTP/2
		return ofConn(codeFrameUnexpected, fmt.Sprintf("reserved frame %#x", kind))
	}
	return nil
}

// appendFrame appends the type and length of a frame.
func appendFrame(b []byte, kind, length uint64) []byte {
	return quicvarint.Append(quicvarint.Append(b, kind), length)
}
