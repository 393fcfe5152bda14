// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"iter"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets of a histogram: four for each power of two of microseconds.
const histBuckets = 4 * 26

// A histogram counts latencies while they happen.
type histogram struct {
	counts [histBuckets]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// histogramOf returns what p holds, which is made when the first latency is known.
func histogramOf(p *atomic.Pointer[histogram]) *histogram {
	if h := p.Load(); h != nil {
		return h
	}
	return newHistogram(p)
}

func newHistogram(p *atomic.Pointer[histogram]) *histogram {
	for {
		p.CompareAndSwap(nil, new(histogram))
		if h := p.Load(); h != nil { // ClearStats may have taken it away again
			return h
		}
	}
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(d))
}

// bucketOf returns the bucket of d: the two bits below the highest say which quarter of
// its power of two it is in.
func bucketOf(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 4 {
		return int(us)
	}
	exp := bits.Len64(us) - 1 // at least 2
	return min((exp-1)*4+int(us>>(exp-2)&3), histBuckets-1)
}

// bucketEnd returns where bucket i ends: the shortest latency above it.
func bucketEnd(i int) time.Duration {
	if i < 3 {
		return time.Duration(i+1) * time.Microsecond
	}
	i++ // the start of the next bucket
	exp := i/4 + 1
	return time.Duration(uint64(4+i%4)<<(exp-2)) * time.Microsecond
}

// read returns a copy.
func (h *histogram) read() Histogram {
	r := Histogram{Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		r.counts[i] = h.counts[i].Load()
	}
	return r
}

// A Histogram counts latencies. Its buckets are a quarter of a power of two wide, from
// 1 µs to about 2 minutes, so that a quantile is at most a quarter too high.
type Histogram struct {
	Sum    time.Duration
	counts [histBuckets]uint64
}

// Count returns how many latencies there are.
func (h Histogram) Count() uint64 {
	var sum uint64
	for _, n := range h.counts {
		sum += n
	}
	return sum
}

// Quantile returns a latency that a part q of all latencies is not above, such as 0.99
// of them. It is 0 if there are none.
func (h Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	left := uint64(max(1, math.Ceil(q*float64(total))))
	for i, n := range h.counts {
		if n >= left {
			return bucketEnd(i)
		}
		left -= n
	}
	return bucketEnd(histBuckets - 1)
}

// Buckets yields the end of each bucket and how many latencies are below it, lower
// buckets included: what a Prometheus histogram wants. Latencies beyond the last are
// counted there.
func (h Histogram) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		var sum uint64
		for i, n := range h.counts {
			sum += n
			if !yield(bucketEnd(i), sum) {
				return
			}
		}
	}
}

// Sub takes away the latencies of o, an earlier reading of what h was read from. If that
// has been cleared meanwhile, h stays as it is.
func (h *Histogram) Sub(o *Histogram) {
	for i, n := range o.counts {
		if n > h.counts[i] {
			return
		}
	}
	h.Sum -= o.Sum
	for i, n := range o.counts {
		h.counts[i] -= n
	}
}

// Add adds the latencies of o to h.
func (h *Histogram) Add(o *Histogram) {
	h.Sum += o.Sum
	for i, n := range o.counts {
		h.counts[i] += n
	}
}
