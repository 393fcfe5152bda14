// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencies is a histogram of recent reply times, with four buckets for each
// power of two of microseconds. The quantile is recomputed after every
// latencyRound replies, and old counts decay at the same time.
type latencies struct {
	q       float64
	counts  [4 * 26]atomic.Uint32
	n       atomic.Uint32
	current atomic.Int64 // the quantile in nanoseconds; 0 means not known yet
}

const (
	latencyRound = 100 // replies between two computations
	latencyUnit  = 256 // what one reply counts: large, so that the decay of small counts is not lost in rounding
)

// note counts a reply.
func (s *latencies) note(f *failure, d time.Duration) {
	if s == nil || f != nil {
		return
	}
	s.counts[latencyBucket(d)].Add(latencyUnit)
	if s.n.Add(1)%latencyRound == 0 {
		s.find()
	}
}

func (s *latencies) quantile() (time.Duration, bool) {
	if s == nil {
		return 0, false
	}
	d := time.Duration(s.current.Load())
	return d, d > 0
}

// find computes the quantile and reduces the counts by an eighth.
func (s *latencies) find() {
	total := uint64(0)
	for i := range s.counts {
		total += uint64(s.counts[i].Load())
	}
	want, sum := uint64(s.q*float64(total)), uint64(0)
	found := false
	for i := range s.counts {
		c := s.counts[i].Load()
		if sum += uint64(c); !found && sum > want {
			s.current.Store(int64(latencyBound(i)))
			found = true
		}
		s.counts[i].Add(-((c + 7) / 8)) // rounded up, or small counts would never reach 0
	}
}

// latencyBucket returns the bucket of d.
func latencyBucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 4 {
		return int(us)
	}
	exp := bits.Len64(us) - 1
	return min((exp-1)*4+int(us>>(exp-2)&3), 4*26-1)
}

// latencyBound returns the shortest latency above bucket i.
func latencyBound(i int) time.Duration {
	if i < 3 {
		return time.Duration(i+1) * time.Microsecond
	}
	i++
	return time.Duration(uint64(4+i%4)<<(i/4-1)) * time.Microsecond
}
