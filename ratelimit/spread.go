// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "sync/atomic"

// A spread counts in several cache lines, so that goroutines with different keys do not
// contend for one line.
type spread struct {
	lanes [8]struct {
		n atomic.Uint64
		_ [56]byte
	}
}

func (c *spread) add(lane uint8) { c.lanes[lane>>1%uint8(len(c.lanes))].n.Add(1) } // the lowest bit of a tag is always set

func (c *spread) sum() uint64 {
	var sum uint64
	for i := range c.lanes {
		sum += c.lanes[i].n.Load()
	}
	return sum
}
