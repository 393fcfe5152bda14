// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A Load is one number that a server reports about its own load: the length of its
// queue, the part of its memory in use, its CPU. See [Server.ReportLoad].
type Load struct {
	Name  string    // "queue", "kv_cache", "cpu_utilization", as host and server agree; at most 128 bytes
	Value float64   // in a unit of its own; finite
	At    time.Time // when it was measured; zero means now
}

// maxLoads bounds the numbers that are kept for a server, and maxLoadName their names in
// bytes: both may come from the server.
const maxLoads, maxLoadName = 32, 128

// ReportLoad replaces the numbers of those names, and keeps the others. It is for the
// code that hears of them: a loop that polls the metrics of each server, a hook that
// reads a field of its replies. A pick reads them without a lock, see [Scored].
//
// A number that is not finite, that is older than the present one of its name, or that
// has no name or too long a one, is ignored. So is a new name when there are 32.
func (s *Server) ReportLoad(loads ...Load) {
	var now time.Time
	for _, l := range loads {
		if l.Name == "" || len(l.Name) > maxLoadName || math.IsNaN(l.Value) || math.IsInf(l.Value, 0) {
			continue
		}
		if l.At.IsZero() {
			if now.IsZero() {
				now = time.Now()
			}
			l.At = now
		}
		if c := s.loadCell(l.Name, maxLoads); c != nil {
			c.set(s.core.stamp(l.At), l.Value)
		}
	}
}

// Load returns the last number of that name that was reported, if there is one. It takes
// no lock and does not allocate.
func (s *Server) Load(name string) (l Load, ok bool) {
	if c := findLoad(s.loads.Load(), name); c != nil {
		return c.load(s.core)
	}
	return Load{}, false
}

// Loads returns the last numbers that were reported, by name.
func (s *Server) Loads() []Load {
	cells := s.loads.Load()
	if cells == nil {
		return nil
	}
	var all []Load
	for _, c := range *cells {
		if l, ok := c.load(s.core); ok {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b Load) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// A loadCell holds the last number of one name.
type loadCell struct {
	name string
	// at is written after value and read before it: a number may be newer than it says,
	// never older.
	value atomic.Uint64 // bits of a float64
	at    atomic.Int64  // a stamp; 0: none was reported
}

// A stamp is a time in nanoseconds since the pool was made, shifted so that 0 stands for
// none.
const stampZero = 1 << 62

// stamp returns that of t.
func (c *core) stamp(t time.Time) int64 {
	return stampZero + int64(max(-stampZero/2, min(t.Sub(c.born), stampZero/2)))
}

func (c *loadCell) set(at int64, value float64) {
	if at >= c.at.Load() {
		c.value.Store(math.Float64bits(value))
		c.at.Store(at)
	}
}

// get returns the number, if it is not older than since.
func (c *loadCell) get(since int64) (value float64, ok bool) {
	if at := c.at.Load(); at == 0 || at < since {
		return 0, false
	}
	return math.Float64frombits(c.value.Load()), true
}

func (c *loadCell) load(of *core) (l Load, ok bool) {
	at := c.at.Load()
	if at == 0 {
		return Load{}, false
	}
	return Load{c.name, math.Float64frombits(c.value.Load()), of.born.Add(time.Duration(at - stampZero))}, true
}

// loadCells is the list of a server; it is replaced, never changed.
type loadCells = atomic.Pointer[[]*loadCell]

func findLoad(cells *[]*loadCell, name string) *loadCell {
	if cells != nil {
		for _, c := range *cells {
			if c.name == name {
				return c
			}
		}
	}
	return nil
}

// loadCell returns the cell of that name, a new one if there are fewer than limit, or nil.
func (s *Server) loadCell(name string, limit int) *loadCell {
	for {
		old := s.loads.Load()
		if c := findLoad(old, name); c != nil {
			return c
		}
		var list []*loadCell
		if old != nil {
			list = (*old)[:len(*old):len(*old)]
		}
		if len(list) >= limit {
			return nil
		}
		list = append(list, &loadCell{name: strings.Clone(name)})
		s.loads.CompareAndSwap(old, &list)
	}
}
