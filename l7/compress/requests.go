// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// Requests decompresses the bodies of requests, for servers that cannot, or that must not
// be trusted with what small bodies may grow to: gzip, br and zstd (RFC 9110, section 8.4).
// The zero value, with a Next, is usable. Its fields must not change once it serves, and it
// may be used by many goroutines at once.
//
// Next gets the body as it streams, without a Content-Encoding, of unknown length, and
// without the fields that hold a digest of its bytes (Content-Digest, Repr-Digest, Digest,
// Content-MD5), in the header or in the trailer: both would be those of the coded body (RFC
// 9530, sections 2 and 3). Nothing checks them before. What asks for a digest of the reply
// (Want-Content-Digest, Want-Repr-Digest) passes. A body that grows too long or too much is cut: the client is answered 413 if
// the reply has not begun, the server gets an incomplete request, and Record.Err is the
// [*BombError]. A body that is malformed, cut off or followed by other bytes is answered 400.
// A request with another coding, with more than one, or with a part of a coded body
// (Content-Range) is answered 415, with an Accept-Encoding field that says what may be sent
// (RFC 7694, section 3). Requests without a coding, or with identity, pass as they are.
type Requests struct {
	MaxBytes int64 // of a decompressed body; 0 means 8 MiB, negative means no limit
	MaxRatio int   // decompressed bytes for each one that has come, beyond the first 64 KiB; 0 means 100, negative means no limit
	Max      int   // bodies decompressed at once, those beyond are answered 503; 0 means 200, negative means no limit

	Next http.Handler

	once  sync.Once
	wrong error              // what Check says
	pools [codings]sync.Pool // of decoder
	open  atomic.Int64
}

// A BombError says that a body has become longer than [Requests] allows. It unwraps to a
// [*http.MaxBytesError].
type BombError struct {
	Coding        string // "gzip", "br" or "zstd"
	Received      int64  // bytes, as they came
	Decompressed  int64  // bytes that they made, until it was cut
	Limit         int64  // how many there may be
	TooMuchGrowth bool   // Limit follows from Requests.MaxRatio, and not from MaxBytes
}

func (e *BombError) Error() string {
	field := "MaxBytes"
	if e.TooMuchGrowth {
		field = "MaxRatio"
	}
	return fmt.Sprintf("compress: body of %d bytes (%s) has more than the %d decompressed bytes of Requests.%s", e.Received, e.Coding, e.Limit, field)
}

// Unwrap returns the error by which proxies and handlers know bodies that are too long.
func (e *BombError) Unwrap() error { return &http.MaxBytesError{Limit: e.Limit} }

// ServeExchange implements [l7.Handler].
func (h *Requests) ServeExchange(x *l7.Exchange) {
	h.once.Do(func() { h.wrong = h.Check() })
	if h.wrong != nil {
		misconfigured(x, h.wrong)
		return
	}
	if !x.Header.Has("Content-Encoding") || x.ContentLength == 0 {
		l7.Serve(h.Next, x)
		return
	}
	c, known := codingOfBody(&x.Header)
	switch {
	case !known || x.Header.Has("Content-Range"):
		x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header.Set("Accept-Encoding", "zstd, br, gzip") }))
		h.refuse(x, http.StatusUnsupportedMediaType, l4.Denied)
		return
	case c == identity:
		l7.Serve(h.Next, x)
		return
	case h.maxBytes() >= 0 && x.ContentLength > h.maxBytes():
		x.Record.Err = &BombError{Coding: c.String(), Received: x.ContentLength, Limit: h.maxBytes()}
		h.refuse(x, http.StatusRequestEntityTooLarge, l4.Denied)
		return
	}
	defer h.open.Add(-1)
	if most := orDefault(h.Max, 200); h.open.Add(1) > int64(most) && most >= 0 {
		x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header.Set("Retry-After", "1") }))
		h.refuse(x, http.StatusServiceUnavailable, l4.Resource)
		return
	}
	for _, name := range []string{"Content-Encoding", "Content-Digest", "Repr-Digest", "Digest", "Content-MD5"} {
		x.Header.Del(name)
	}
	x.SetBody(&plainBody{h: h, coding: c, from: source{r: x.Body()}}, -1)
	l7.Serve(h.Next, x)
}

func (h *Requests) refuse(x *l7.Exchange, status int, by l4.Cause) {
	x.Error(status, l4.Termination{Cause: by, Phase: l4.PhaseRequest})
}

func (h *Requests) maxBytes() int64 {
	if h.MaxBytes == 0 {
		return 8 << 20
	}
	return h.MaxBytes
}

// ServeHTTP implements [http.Handler].
func (h *Requests) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(h, w, r) }

// Check returns what is wrong with h and its handler, each mistake a
// [*penstock.ConfigError].
func (h *Requests) Check() error {
	var m penstock.Mistakes
	m.Need("Requests.Next", h.Next, "must be the handler that goes on")
	m.In("Requests.Next", h.Next)
	return m.Err()
}

// codingOfBody returns the only coding of a body; known is false if it is another one, or
// not the only one. Identity, which is not to be sent, counts as none.
func codingOfBody(f *l7.Fields) (c coding, known bool) {
	c = identity
	for line := range f.Values("Content-Encoding") {
		for member := range strings.SplitSeq(line, ",") {
			member = strings.Trim(member, " \t")
			if member == "" {
				continue // RFC 9110, section 5.6.1.2
			}
			next, ok := codingOf(member)
			switch {
			case !ok || next == others || next != identity && c != identity:
				return identity, false
			case next != identity:
				c = next
			}
		}
	}
	return c, true
}

// free is how much a body may always grow to.
const free = 64 << 10

// A plainBody is decompressed as it is read.
type plainBody struct {
	h      *Requests
	coding coding
	from   source
	dec    decoder // nil before the first read, and after the end
	out    int64
	err    error
}

func (b *plainBody) Read(p []byte) (n int, err error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.dec == nil {
		if b.dec, _ = b.h.pools[b.coding].Get().(decoder); b.dec == nil {
			b.dec = newDecoder(b.coding)
		}
		err = b.dec.Reset(&b.from)
	}
	for n == 0 && err == nil {
		n, err = b.dec.Read(p)
	}
	b.out += int64(n)
	if limit, growth := b.limit(); limit >= 0 && b.out > limit {
		n = max(0, n-int(b.out-limit))
		err = &BombError{b.coding.String(), b.from.n, b.out, limit, growth}
	}
	if err != nil {
		b.end(err)
	}
	if n > 0 {
		return n, nil // b.err is for the next read
	}
	return 0, b.err
}

// limit returns how many bytes may have been decompressed by now, negative meaning any
// number, and whether that follows from the ratio.
func (b *plainBody) limit() (limit int64, growth bool) {
	limit = b.h.maxBytes()
	if ratio := int64(orDefault(b.h.MaxRatio, 100)); ratio > 0 {
		most := int64(math.MaxInt64)
		if b.from.n <= most/ratio {
			most = max(free, b.from.n*ratio)
		}
		if limit < 0 || most < limit {
			return most, true
		}
	}
	return limit, false
}

// end notes the error that the body ends with. A decoder is used again once it has come to
// the end of a body. Otherwise it is dropped, as it may be in any state.
func (b *plainBody) end(err error) {
	var bomb *BombError
	switch {
	case errors.As(err, &bomb):
	case b.from.err != nil && b.from.err != io.EOF:
		err = b.from.err // of the client's connection, which a decoder may have put in other words
	case err == io.EOF && b.from.n == 0:
		err = malformed(io.ErrUnexpectedEOF) // zstd takes no frame at all for an empty body
	case err == io.EOF:
		if err = b.from.ended(); err == io.EOF && b.dec.Reset(nothing{}) == nil {
			b.h.pools[b.coding].Put(b.dec)
		}
	default:
		err = malformed(err)
	}
	b.err, b.dec = err, nil
}

func malformed(err error) error { return &l7.BodyError{Status: http.StatusBadRequest, Err: err} }

// A source is the body as it comes.
type source struct {
	r   io.Reader
	n   int64
	err error // that it has ended with
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.err = err
	return n, err
}

// ended returns io.EOF if nothing follows. A decoder may have stopped before the end that
// the message has.
func (s *source) ended() error {
	var one [1]byte
	for {
		switch n, err := s.Read(one[:]); {
		case n > 0:
			return malformed(errFollowed)
		case err != nil:
			return err
		}
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
