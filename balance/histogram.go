// SPDX-License-Identifier: Apache-2.0

package balance

import (
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

// histogram returns that of s, which is made when the first latency is known.
func (s *Server) histogram() *histogram {
	if h := s.hist.Load(); h != nil {
		return h
	}
	s.hist.CompareAndSwap(nil, new(histogram))
	return s.hist.Load()
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(d))
}

// bucketOf returns the bucket of d: the two bits below the highest say which
// quarter of its power of two it is in.
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
