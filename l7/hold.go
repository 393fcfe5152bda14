// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"time"
)

// holding is how the replies of servers are held back until they are there. Several
// exchanges share one.
type holding struct {
	field   string // that sets timeout
	max     int    // bytes of a reply
	all     int64  // bytes of all replies; 0 means no limit
	timeout time.Duration
	held    atomic.Int64
}

// grow returns b, of a reply of that length, -1 if it is not known, with room for n bytes
// more, or nil if it must not grow so far.
func (h *holding) grow(b []byte, n int, length int64) []byte {
	if len(b)+n > h.max {
		return nil
	}
	if len(b)+n <= cap(b) {
		return b
	}
	size := min(max(2*cap(b), len(b)+n, 4<<10), h.max)
	if length >= int64(len(b)+n) {
		size = min(size, int(length))
	}
	if more := int64(size - cap(b)); h.held.Add(more) > h.all && h.all > 0 {
		h.held.Add(-more)
		return nil
	}
	return append(make([]byte, 0, size), b...)
}

// give gives back what grow has taken for b.
func (h *holding) give(b []byte) { h.held.Add(-int64(cap(b))) }
