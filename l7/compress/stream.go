// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"bytes"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/penstock-lb/penstock/l4"
)

// The memory of one reply: the window of the compressors, and the bytes read at once. The
// window of gzip is 32 KiB.
const (
	windowBits = 18
	pieceBytes = 16 << 10
	turnPieces = 4         // that are compressed in one turn, half a millisecond or so: with each change to another reply the caches of the processor are cold
	keptBytes  = 256 << 10 // of a buffer that is kept for the next reply
)

// An encoder is what the compressors have in common.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// newEncoder returns an encoder that has no output yet. Levels are those of Check.
func newEncoder(c coding, level int) encoder {
	switch c {
	case zstdCoding:
		w, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithWindowSize(1<<windowBits),
			zstd.WithEncoderConcurrency(1), // no goroutines
			zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
		if err != nil {
			panic(err) // an option is out of range
		}
		return w
	case brotliCoding:
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: level, LGWin: windowBits})
	}
	w, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		panic(err) // the level is out of range
	}
	return w
}

// A compressor is an encoder with its buffers, which are reused together.
type compressor struct {
	enc encoder
	out bytes.Buffer // compressed, and not read yet
	in  [pieceBytes]byte
}

// A stream is a body that is compressed as it is read. At its end it returns its
// compressor for reuse. If it is not read to its end, the compressor is dropped, since a
// reader may still use it.
type stream struct {
	body   io.Reader
	c      *compressor // nil once it was given back
	pool   *sync.Pool
	flush  bool  // what has come is passed on before more is waited for
	pieces int   // long ones that have been compressed
	err    error // that body has ended with; io.EOF means that out has the end of the stream
}

func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.c != nil {
		if s.c.out.Len() > 0 {
			return s.c.out.Read(p)
		}
		if s.err != nil {
			s.giveBack()
			break
		}
		s.c.out.Reset()
		s.more()
	}
	return 0, s.err
}

// more compresses the next piece.
func (s *stream) more() {
	n, err := s.body.Read(s.c.in[:])
	if n > pieceBytes/4 {
		if s.pieces++; s.pieces%turnPieces == 0 {
			l4.TakeTurn()
		}
	}
	_, werr := s.c.enc.Write(s.c.in[:n])
	switch {
	case werr != nil:
		err = werr
	case err == io.EOF:
		if werr := s.c.enc.Close(); werr != nil {
			err = werr
		}
	case err != nil:
		_ = s.c.enc.Flush() // the client gets what came until then, and no end
	case s.flush && n > 0:
		err = s.c.enc.Flush()
	}
	s.err = err
}

func (s *stream) giveBack() {
	c := s.c
	s.c = nil
	c.out.Reset()
	if c.out.Cap() > keptBytes {
		c.out = bytes.Buffer{}
	}
	s.pool.Put(c)
}
