// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// coded returns text with a coding, by the compressors of this package.
func coded(t testing.TB, c coding, text []byte) []byte {
	var out bytes.Buffer
	enc := newEncoder(c, map[coding]int{zstdCoding: 3, brotliCoding: 4, gzipCoding: 6}[c])
	enc.Reset(&out)
	_, err := enc.Write(text)
	require.NoError(t, err)
	require.NoError(t, enc.Close())
	return out.Bytes()
}

// A told is what the origin has got last, and the record of it.
type told struct {
	mu     sync.Mutex
	header http.Header
	length int64
	body   []byte
	err    error
	record l7.Record
}

// got returns what there is, without the lock.
func (o *told) got() *told {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &told{header: o.header, length: o.length, body: o.body, err: o.err, record: o.record}
}

// noting keeps the record of what h serves.
func (o *told) noting(h http.Handler) http.Handler {
	return l7.HandlerFunc(func(x *l7.Exchange) {
		l7.Serve(h, x)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.record = x.Record
	})
}

func (o *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.header, o.length, o.body, o.err = r.Header, r.ContentLength, body, err
}

// post sends a body through h on each front, in chunks if it is not at hand.
func (s *site) post(body io.Reader, fields ...string) *http.Response {
	r, err := http.NewRequestWithContext(s.Context(), "POST", "http://10.0.0.1/", body)
	require.NoError(s, err)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	res, err := s.client.Do(r)
	require.NoError(s, err)
	_, _ = io.Copy(io.Discard, res.Body)
	require.NoError(s, res.Body.Close())
	return res
}

func TestRequests(t *testing.T) {
	var o told
	text := page(300 << 10)
	onAll(t, o.ServeHTTP, func(next http.Handler) http.Handler {
		return o.noting(&Requests{Next: next})
	}, func(s *site) {
		for c := range codings {
			b := coded(s, c, text)
			for range 2 { // the second time with a decoder that was used
				for _, body := range []io.Reader{bytes.NewReader(b), struct{ io.Reader }{iotest.HalfReader(bytes.NewReader(b))}} {
					r := s.post(body, "Content-Encoding", strings.ToUpper(c.String()), "Content-Digest", "sha-256=:AA==:", "X-Other", "1")
					require.Equal(s, 200, r.StatusCode)
					require.Equal(s, text, o.body)
					require.EqualValues(s, -1, o.length)
					require.Empty(s, o.header.Get("Content-Encoding"))
					require.Empty(s, o.header.Get("Content-Digest"))
					require.Equal(s, "1", o.header.Get("X-Other"))
				}
			}
		}
		r := s.post(strings.NewReader("as it is"))
		require.Equal(s, 200, r.StatusCode)
		require.EqualValues(s, 8, o.length)
		r = s.post(strings.NewReader("as it is"), "Content-Encoding", "identity")
		require.Equal(s, 200, r.StatusCode)
		require.Equal(s, "as it is", string(o.body))
	})
}

// A digest of the coded bytes is wrong for the body that the server gets, wherever it is.
func TestRequestsDropDigests(t *testing.T) {
	digests := []string{"Content-Digest", "Repr-Digest", "Digest", "Content-MD5", "content_digest"}
	var header, trailer http.Header
	onAll(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		header, trailer = r.Header, r.Trailer
	}, func(next http.Handler) http.Handler { return &Requests{Next: next} }, func(s *site) {
		for _, coding := range []string{"gzip", "identity"} {
			r := s.request("Method", "POST", "Content-Encoding", coding)
			body := []byte("hello")
			if coding == "gzip" {
				body = coded(s, gzipCoding, body)
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
			r.Trailer = http.Header{"X-Other": {"1"}}
			for _, name := range append(digests, "Want-Content-Digest") {
				r.Header[name], r.Trailer[name] = []string{"sha-256=:AA==:"}, []string{"sha-256=:AA==:"}
			}
			resp, err := s.client.Do(r)
			require.NoError(s, err)
			resp.Body.Close()
			require.Equal(s, "1", trailer.Get("X-Other"))
			require.NotEmpty(s, header.Get("Want-Content-Digest"))
			for _, name := range digests {
				got := len(header[http.CanonicalHeaderKey(name)]) + len(trailer[http.CanonicalHeaderKey(name)])
				if coding == "gzip" {
					require.Zero(s, got, name)
				} else {
					require.NotZero(s, got, name) // under an http.Server, a name is in one of them
				}
			}
		}
	})
}

// TestRequestsRefused is about bodies of all kinds that are no good. What is wrong with one
// may show when a part of it is on its way.
func TestRequestsRefused(t *testing.T) {
	var o told
	zeros := make([]byte, 4<<20)
	noise := make([]byte, 200<<10)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise)
	for name, test := range map[string]struct {
		body   func(c coding) []byte
		status int
		end    l4.Termination
		bomb   bool
	}{
		"grows too much":   {func(c coding) []byte { return coded(t, c, zeros) }, 413, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}, true},
		"too long":         {func(c coding) []byte { return coded(t, c, append(noise, noise...)) }, 413, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}, true},
		"another coding":   {func(coding) []byte { return []byte("not compressed at all") }, 400, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}, false},
		"cut off":          {func(c coding) []byte { b := coded(t, c, page(20<<10)); return b[:len(b)-5] }, 400, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}, false},
		"followed by more": {func(c coding) []byte { return append(coded(t, c, page(20<<10)), "GET / HTTP/1.1"...) }, 400, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}, false},
	} {
		t.Run(name, func(t *testing.T) {
			onAll(t, o.ServeHTTP, func(next http.Handler) http.Handler {
				return o.noting(&Requests{MaxBytes: 300 << 10, MaxRatio: 50, Next: next})
			}, func(s *site) {
				for c := range codings {
					r := s.post(bytes.NewReader(test.body(c)), "Content-Encoding", c.String())
					require.Equal(s, test.status, r.StatusCode, c)
					time.Sleep(time.Second)
					got := o.got()
					require.Equal(s, test.end, got.record.Termination, "%v %v", c, got.record.Err)
					var bomb *BombError
					require.Equal(s, test.bomb, errors.As(got.record.Err, &bomb), "%v %v", c, got.record.Err)
					if bomb != nil {
						require.Equal(s, name == "grows too much", bomb.TooMuchGrowth, "%v", bomb)
						require.LessOrEqual(s, len(got.body), 300<<10)
					}
				}
			})
		})
	}
}

// TestRequestsOther: what cannot be decompressed is not passed on either.
func TestRequestsOther(t *testing.T) {
	var o told
	onAll(t, o.ServeHTTP, func(next http.Handler) http.Handler { return &Requests{Next: next} }, func(s *site) {
		for _, fields := range [][]string{
			{"Content-Encoding", "deflate"}, {"Content-Encoding", "gzip, br"}, {"Content-Encoding", "gzip", "Content-Encoding", "gzip"},
			{"Content-Encoding", "*"}, {"Content-Encoding", "gzip;q=1"}, {"Content-Encoding", "gzip", "Content-Range", "bytes 0-1/2"},
		} {
			o.body = nil
			r := s.post(bytes.NewReader(coded(s, gzipCoding, []byte("text"))), fields...)
			require.Equal(s, 415, r.StatusCode, fields)
			require.Equal(s, "zstd, br, gzip", r.Header.Get("Accept-Encoding"))
			require.Nil(s, o.body)
		}
		for _, fine := range []string{"x-gzip", "GZip", ", gzip ,", "identity, gzip"} {
			r := s.post(bytes.NewReader(coded(s, gzipCoding, []byte("text"))), "Content-Encoding", fine)
			require.Equal(s, 200, r.StatusCode, fine)
			require.Equal(s, "text", string(o.body))
		}
	})
}

// TestRequestsMax: no more are decompressed at once than Max says.
func TestRequestsMax(t *testing.T) {
	var o told
	onAll(t, o.ServeHTTP, func(next http.Handler) http.Handler { return &Requests{Max: 1, Next: next} }, func(s *site) {
		slow, w := io.Pipe()
		done := make(chan int)
		go func() { done <- s.post(slow, "Content-Encoding", "gzip").StatusCode }()
		b := coded(s, gzipCoding, []byte("text"))
		_, _ = w.Write(b[:5])
		time.Sleep(time.Second)
		r := s.post(bytes.NewReader(b), "Content-Encoding", "gzip")
		require.Equal(s, 503, r.StatusCode)
		require.Equal(s, "1", r.Header.Get("Retry-After"))
		_, _ = w.Write(b[5:])
		_ = w.Close()
		require.Equal(s, 200, <-done)
		require.Equal(s, 200, s.post(bytes.NewReader(b), "Content-Encoding", "gzip").StatusCode)
	})
}

// FuzzRequests: whatever comes, no more than the bounds allow comes out, what does comes out
// the same in pieces of any size, and there is an end.
func FuzzRequests(f *testing.F) {
	for c := range codings {
		b := coded(f, c, page(5<<10))
		f.Add(uint8(c), b)
		f.Add(uint8(c), b[:len(b)/2])
		f.Add(uint8(c), append(bytes.Clone(b), b...))
		f.Add(uint8(c), coded(f, c, make([]byte, 1<<20)))
	}
	f.Fuzz(func(t *testing.T, c uint8, b []byte) {
		h := &Requests{MaxBytes: 100 << 10, MaxRatio: 20}
		read := func(from io.Reader, piece int) (out []byte, err error) {
			p := &plainBody{h: h, coding: coding(c) % codings, from: source{r: from}}
			buf := make([]byte, piece)
			for {
				n, err := p.Read(buf)
				if out = append(out, buf[:n]...); err != nil {
					again, same := p.Read(buf)
					require.Zero(t, again)
					require.Equal(t, err, same)
					require.LessOrEqual(t, int64(len(out)), int64(100<<10))
					require.LessOrEqual(t, len(out), max(free, 20*len(b)))
					return out, err
				}
			}
		}
		one, err := read(bytes.NewReader(b), 4096)
		two, err2 := read(iotest.OneByteReader(bytes.NewReader(b)), 1000)
		require.Equal(t, err == io.EOF, err2 == io.EOF, "%v, %v", err, err2)
		if err == io.EOF {
			require.True(t, bytes.Equal(one, two))
		}
	})
}

// The greatest options bound nothing, rather than wrap around.
func TestRequestsWithoutBounds(t *testing.T) {
	for _, h := range []*Requests{{MaxBytes: math.MaxInt64, MaxRatio: math.MaxInt, Max: math.MaxInt}, {MaxBytes: -1, MaxRatio: math.MaxInt, Max: -1}, {MaxBytes: -1, MaxRatio: -1, Max: -1}} {
		for _, n := range []int64{1, 3, 1 << 20, math.MaxInt64} {
			b := plainBody{h: h, from: source{n: n}}
			limit, _ := b.limit()
			require.True(t, limit < 0 || limit == math.MaxInt64, "%d bytes, MaxRatio %d: %d", n, h.MaxRatio, limit)
		}
	}
}

func TestBombError(t *testing.T) {
	err := fmt.Errorf("reading: %w", &BombError{Coding: "gzip", Received: 10, Decompressed: 70_000, Limit: 65_536, TooMuchGrowth: true})
	var tooLong *http.MaxBytesError
	require.ErrorAs(t, err, &tooLong)
	require.EqualValues(t, 65_536, tooLong.Limit)
	require.Contains(t, err.Error(), "Requests.MaxRatio")
}

// BenchmarkRequests is the cost of a request without a coding, which is nearly all of them.
func BenchmarkRequests(b *testing.B) {
	h := &Requests{Next: l7.HandlerFunc(func(*l7.Exchange) {})}
	x := &l7.Exchange{Header: l7.MakeFields("User-Agent", "x", "Accept", "*/*", "Content-Type", "application/json"), ContentLength: 10}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeExchange(x)
	}
}
