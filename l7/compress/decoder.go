// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"bufio"
	"errors"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var errFollowed = errors.New("compress: bytes after the end of a compressed body")

// A decoder is what the decompressors have in common.
type decoder interface {
	io.Reader
	Reset(r io.Reader) error
}

// maxWindow is how far back a body compressed with zstd may refer (RFC 9659). That of br
// is at most 16 MiB (RFC 7932, section 9.1), and that of gzip 32 KiB.
const maxWindow = 8 << 20

// newDecoder returns a decoder that has to be Reset. It starts no goroutines.
func newDecoder(c coding) decoder {
	switch c {
	case zstdCoding:
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			panic(err) // an option is out of range
		}
		return d
	case brotliCoding:
		return new(brotli.Reader)
	}
	return &gunzip{from: bufio.NewReaderSize(nil, 4<<10)}
}

// gunzip reads through a buffer of its own: gzip.Reader makes one for each body otherwise.
type gunzip struct {
	gzip.Reader
	from *bufio.Reader
}

// Reset begins another body, whose header it reads.
func (g *gunzip) Reset(r io.Reader) error {
	g.from.Reset(r)
	if _, done := r.(nothing); done {
		return nil
	}
	if err := g.Reader.Reset(g.from); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // a body without a byte is no end of one
		}
		return err
	}
	return nil
}
