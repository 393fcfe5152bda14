// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strconv"
	"strings"
)

// maxChunkOverhead bounds the bytes of chunk lines beyond the data they frame,
// summed over a body: extensions and tiny chunks are an amplifier
// (CVE-2023-39326). Each chunk lowers the sum by the length of its data.
const maxChunkOverhead = 16 << 10

// fairChunkLine is what a chunk with data may have for its line at no charge: a server that
// sends a stream byte by byte does no harm.
const fairChunkLine = 16

// maxTrailerBytes bounds the trailer section.
const maxTrailerBytes = 8 << 10

// chunkState is the state of a [chunkDecoder].
type chunkState uint8

const (
	chunkSize    chunkState = iota // in the size, digits so far in n
	chunkExt                       // in an extension
	chunkSizeLF                    // LF of the size line
	chunkData                      // n bytes of data to come
	chunkDataCR                    // CR after the data
	chunkDataLF                    // LF after the data
	chunkTrailer                   // in the trailer section
	chunkDone
)

// A chunkDecoder parses a chunked body (RFC 9112, section 7.1). It is strict:
// CRLF only, hexadecimal digits only, and only an extension after them. The
// zero value is at the beginning of a body.
type chunkDecoder struct {
	state    chunkState
	digits   uint8
	n        int64
	overhead int
	trailer  []byte // the trailer section as read, with its empty line
}

func badChunk(reason string) *headError { return &headError{http.StatusBadRequest, reason} }

// decode consumes bytes of src. It returns the first run of data among them and
// how many bytes it consumed, the run included; a call that yields no data has
// consumed all of src, or reached the end of the body.
func (d *chunkDecoder) decode(src []byte) (data []byte, used int, err *headError) {
	for used < len(src) && d.state != chunkDone {
		if d.state == chunkData {
			k := int(min(d.n, int64(len(src)-used)))
			data = src[used : used+k]
			d.overhead = max(d.overhead-k, 0)
			if d.n -= int64(k); d.n == 0 {
				d.state = chunkDataCR
				d.overhead = max(d.overhead-fairChunkLine, 0)
			}
			return data, used + k, nil
		}
		c := src[used]
		used++
		if d.overhead++; d.overhead > maxChunkOverhead {
			return nil, used, badChunk("chunk lines too long")
		}
		if err = d.step(c); err != nil {
			return nil, used, err
		}
	}
	return nil, used, nil
}

// step takes one byte outside the data.
func (d *chunkDecoder) step(c byte) *headError {
	switch d.state {
	case chunkSize:
		return d.sizeByte(c)
	case chunkExt:
		if c == '\r' {
			d.state = chunkSizeLF
		} else if c < 0x20 && c != '\t' || c == 0x7f {
			return badChunk("control character in a chunk extension")
		}
	case chunkSizeLF:
		if c != '\n' {
			return badChunk("chunk size without CRLF")
		}
		if d.digits = 0; d.n == 0 {
			d.state = chunkTrailer
			d.trailer = d.trailer[:0]
		} else {
			d.state = chunkData
		}
	case chunkDataCR:
		if c != '\r' {
			return badChunk("chunk data without CRLF")
		}
		d.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return badChunk("chunk data without CRLF")
		}
		d.state = chunkSize
	case chunkTrailer:
		return d.trailerByte(c)
	}
	return nil
}

func (d *chunkDecoder) sizeByte(c byte) *headError {
	switch {
	case class[c]&isHexByte != 0:
		if d.digits++; d.n >= 1<<55 || d.digits > 200 {
			return badChunk("chunk size too large")
		}
		v := c - '0'
		if v > 9 {
			v = lower(c) - 'a' + 10
		}
		d.n = d.n<<4 | int64(v)
		return nil
	case d.digits == 0:
	case c == '\r':
		d.state = chunkSizeLF
		return nil
	case c == ';':
		d.state = chunkExt
		return nil
	}
	return badChunk("malformed chunk size")
}

func (d *chunkDecoder) trailerByte(c byte) *headError {
	d.trailer = append(d.trailer, c)
	n := len(d.trailer)
	if n > maxTrailerBytes {
		return &headError{http.StatusRequestHeaderFieldsTooLarge, "trailer too long"}
	}
	if c != '\n' {
		return nil
	}
	if n < 2 || d.trailer[n-2] != '\r' {
		return badChunk("line ends in a bare LF")
	}
	if n == 2 || d.trailer[n-3] == '\n' {
		d.state = chunkDone
	}
	return nil
}

// fields returns the trailer fields that may be forwarded, or nil: framing,
// routing and connection fields have no place in a trailer (RFC 9110, section
// 6.5.1).
func (d *chunkDecoder) fields(maxFields int) (*Fields, *headError) {
	if len(d.trailer) <= 2 {
		return nil, nil
	}
	var list Fields
	var f framing
	f.length = -1
	if err := parseFields(&list, &f, string(d.trailer), maxFields); err != nil {
		return nil, err
	}
	list.DelFunc(func(name, _ string) bool { return forbiddenTrailer(name) })
	return &list, nil
}

// forbiddenTrailer reports whether a field may not be sent in a trailer: it
// would change framing, routing, conditions, authentication or how the message is
// read (RFC 9110, section 6.5.1; the names are net/http's, and more).
func forbiddenTrailer(name string) bool {
	if kindOf(name) != kindOther || strings.IndexByte(name, '_') >= 0 && kindOf(strings.ReplaceAll(name, "_", "-")) != kindOther {
		return true
	}
	for _, n := range [...]string{
		"authorization", "cache-control", "content-encoding", "content-range", "content-type",
		"cookie", "set-cookie", "www-authenticate", "location", "range", "age", "expires", "vary", "retry-after",
		"pragma", "realm",
	} {
		if alike(name, n) {
			return true
		}
	}
	return len(name) > 3 && covers(name[:3], "if-")
}

// chunkRoom is the number of bytes before and after data that its chunk framing
// takes.
const (
	chunkRoomBefore = 10 // 8 hexadecimal digits and CRLF
	chunkRoomAfter  = 2
)

// appendChunkSize appends the line before n bytes of data.
func appendChunkSize(b []byte, n int) []byte {
	return append(strconv.AppendUint(b, uint64(n), 16), '\r', '\n')
}
