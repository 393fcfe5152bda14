// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"io"
	"math/bits"
	"sync/atomic"
	"time"
)

// Bandwidth paces the bytes of one stream, or of all streams that share it, in
// the order in which they ask. In any time t it lets pass at most
//
//	BurstBytes + t * BytesPerSecond + the chunk under way
//
// since a chunk passes as a whole at its turn. The zero Bandwidth is no limit.
// All methods may be called at once; a Bandwidth must not be copied.
type Bandwidth struct {
	BytesPerSecond int64 // 0 or negative means no limit
	BurstBytes     int64 // at once after a pause; 0 means a tenth of a second's worth, negative means none

	clock clock
	ahead atomic.Int64 // when what was let pass is paid for, on clock
	rate  atomic.Int64 // set by SetRate; 0 means BytesPerSecond, negative no limit

	bytes, delayed atomic.Uint64
}

// Stats returns the totals until now. Bytes that were given back are not taken off.
func (b *Bandwidth) Stats() Stats {
	return Stats{Bytes: b.bytes.Load(), Delayed: b.delayed.Load()}
}

// SetRate changes the limit from the next chunk on; 0 or negative means none.
func (b *Bandwidth) SetRate(bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		bytesPerSecond = -1
	}
	b.rate.Store(bytesPerSecond)
}

// Rate returns the limit in bytes per second, 0 if there is none.
func (b *Bandwidth) Rate() int64 {
	r := b.rate.Load()
	if r == 0 {
		r = b.BytesPerSecond
	}
	return max(0, r)
}

// Reserve takes a turn for n bytes and returns how long to wait before they
// pass. The turn is taken; if it is not used, Unreserve gives it back.
func (b *Bandwidth) Reserve(n int) time.Duration {
	rate := b.Rate()
	if rate == 0 || n <= 0 {
		return 0
	}
	burst := b.BurstBytes
	if burst == 0 {
		burst = rate / 10
	}
	now, cost := b.clock.now(), spanOf(int64(n), rate)
	slack := spanOf(max(0, burst), rate)
	for {
		ahead := b.ahead.Load()
		from := max(time.Duration(ahead), now)
		if b.ahead.CompareAndSwap(ahead, int64(later(from, cost))) {
			// Its turn is when all before it is paid for, but for the burst.
			wait := max(0, from-now+min(cost, slack)-slack)
			b.bytes.Add(uint64(n))
			if wait > 0 {
				b.delayed.Add(uint64(n))
			}
			return wait
		}
	}
}

// Unreserve gives back the turn of n bytes that did not pass.
func (b *Bandwidth) Unreserve(n int) {
	if rate := b.Rate(); rate > 0 && n > 0 {
		b.ahead.Add(-int64(spanOf(int64(n), rate)))
	}
}

// Wait waits until n bytes may pass. If ctx ends first it returns its error,
// and the bytes count as not passed.
func (b *Bandwidth) Wait(ctx context.Context, n int) error {
	if err := sleep(ctx, b.Reserve(n)); err != nil {
		b.Unreserve(n)
		return err
	}
	return nil
}

// Chunk returns how many bytes are best let pass at a time: a twentieth of a
// second's worth, but at least two full packets and at most 64 KiB.
func (b *Bandwidth) Chunk() int {
	rate := b.Rate()
	if rate == 0 {
		return 64 << 10
	}
	return int(min(max(rate/20, 2896), 64<<10))
}

// Reader returns a reader of r at the pace of b. A read fails with the error
// of ctx once that ends, if it would wait.
func (b *Bandwidth) Reader(ctx context.Context, r io.Reader) io.Reader {
	return pacedReader{b, ctx, r}
}

type pacedReader struct {
	b   *Bandwidth
	ctx context.Context // of the one transfer that the reader is made for
	r   io.Reader
}

func (p pacedReader) Read(buf []byte) (int, error) {
	n, err := p.r.Read(buf[:min(len(buf), p.b.Chunk())])
	if n > 0 {
		if late := p.b.Wait(p.ctx, n); late != nil {
			return 0, late
		}
	}
	return n, err
}

// Writer returns a writer to w at the pace of b. A write fails with the error
// of ctx once that ends, if it would wait.
func (b *Bandwidth) Writer(ctx context.Context, w io.Writer) io.Writer {
	return pacedWriter{b, ctx, w}
}

type pacedWriter struct {
	b   *Bandwidth
	ctx context.Context
	w   io.Writer
}

func (p pacedWriter) Write(buf []byte) (done int, err error) {
	for len(buf) > 0 {
		n := min(len(buf), p.b.Chunk())
		if err := p.b.Wait(p.ctx, n); err != nil {
			return done, err
		}
		n, err = p.w.Write(buf[:n])
		done += n
		if err != nil {
			return done, err
		}
		buf = buf[n:]
	}
	return done, nil
}

// spanOf returns how long n bytes take at that rate, rounded up.
func spanOf(n, rate int64) time.Duration {
	hi, lo := bits.Mul64(uint64(n), uint64(time.Second))
	if hi >= uint64(rate) {
		return longest
	}
	q, r := bits.Div64(hi, lo, uint64(rate))
	if r > 0 {
		q++
	}
	return time.Duration(min(q, uint64(longest)))
}
