// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"iter"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets of a histogram: four for each power of two of units. A unit is 2^-20 of a
// second, about a microsecond, so that powers of two of a second are bounds: those of
// native histograms of Prometheus and of exponential ones of OpenTelemetry.
const (
	histBuckets = 4 * 26
	histUnits   = 20                // their number in a second, as a power of two
	histLongest = 256 * time.Second // is in the last bucket, as is all above it
)

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
	units := uint64(min(max(d, 0), histLongest)) << histUnits / uint64(time.Second)
	if units < 4 {
		return int(units)
	}
	exp := bits.Len64(units) - 1 // at least 2
	return min((exp-1)*4+int(units>>(exp-2)&3), histBuckets-1)
}

// bucketEnd returns where bucket i ends: the shortest latency above it.
func bucketEnd(i int) time.Duration {
	i++ // the start of the next bucket
	units := uint64(i)
	if exp := i/4 + 1; exp > 1 {
		units = uint64(4+i%4) << (exp - 2)
	}
	return time.Duration((units*uint64(time.Second) + 1<<histUnits - 1) >> histUnits)
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
// about 1 µs to 2 minutes, so that a quantile is at most a quarter too high. All powers of
// two of a second from 2^-18 on are bounds of buckets: 1 s, 500 ms, 250 ms and so on.
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
// of them. It is 0 if there are none. A q below 0 counts as 0, one above 1 or NaN as 1.
func (h Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	left := total
	if want := q * float64(total); want < float64(total) {
		left = uint64(max(1, math.Ceil(want)))
	}
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
