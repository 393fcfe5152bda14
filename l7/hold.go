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
	max     int    // bytes of a reply, at most all
	all     int64  // bytes of all replies; 0 means no limit
	timeout time.Duration
	held    atomic.Int64
}

// take takes room for n bytes, if there is so much.
func (h *holding) take(n int64) bool {
	if h.held.Add(n) > h.all && h.all > 0 {
		h.held.Add(-n)
		return false
	}
	return true
}

// A held is the beginning of a reply, or all of it, that is held back.
type held struct {
	of   *holding // nil if nothing is held
	body []byte
	room int64 // taken for it, at least the capacity of body
}

// smallReply is how many bytes of a reply are held before room is taken for all of it.
const smallReply = 64 << 10

// add appends p to a reply of that length, -1 if it is not known. False means that there
// is no room for it.
func (a *held) add(p []byte, length int64) bool {
	n := len(a.body) + len(p)
	if n > a.of.max {
		return false
	}
	if int64(n) > a.room {
		// Were room taken as the replies grow, many that grow at once would fill all of it
		// with their beginnings, and none would become whole.
		room := int64(a.of.max)
		switch {
		case length >= int64(n):
			room = length
		case n <= smallReply:
			room = min(room, smallReply, max(2*a.room, int64(n), 4<<10))
		}
		if !a.of.take(room - a.room) {
			return false
		}
		a.room = room
	}
	if n > cap(a.body) {
		size := min(max(2*cap(a.body), n, 4<<10), int(a.room))
		a.body = append(make([]byte, 0, size), a.body...)
	}
	a.body = append(a.body, p...)
	return true
}

// grown says that nothing will be added any more: room that is not used is given back.
func (a *held) grown() {
	a.of.held.Add(int64(cap(a.body)) - a.room)
	a.room = int64(cap(a.body))
}

// give gives all room back.
func (a *held) give() {
	if a.of != nil {
		a.of.held.Add(-a.room)
		*a = held{}
	}
}
