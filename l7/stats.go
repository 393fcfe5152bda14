// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"unsafe"

	"github.com/penstock-lb/penstock/l4"
)

// Statuses counts exchanges by the first digit of the status of their reply; 0 means
// that there was none.
type Statuses [6]uint64

// Total returns the sum.
func (s Statuses) Total() uint64 {
	var sum uint64
	for _, n := range s {
		sum += n
	}
	return sum
}

// Stats are figures of a Server since it was made. They only grow, but for Open and
// Parked.
type Stats struct {
	Open            int      // connections, those of the standard front and upgraded ones included
	Parked          int      // of them, idle ones that have no goroutine
	Accepted        uint64   // connections
	AcceptErrors    uint64   // times that a listener failed
	Handshakes      uint64   // of TLS
	HandshakeErrors uint64   // those that failed
	Requests        Statuses // that have ended, those that could not be read included
	Ends            l4.Ends  // who ended them; l4.Denied are those that a limit or a rule refused
	BytesIn         uint64   // of request bodies
	BytesOut        uint64   // of reply bodies
}

// RouteStats are figures of a route.
type RouteStats struct {
	Route    string   // its name
	Requests Statuses // that have ended
	BytesIn  uint64   // of request bodies
	BytesOut uint64   // of reply bodies
}

// A tally counts exchanges that have ended, in 512 bytes. It is spread over several
// cache lines, so that cores which serve at once do not wait for each other's.
type tally struct{ lanes [8]lane }

// A lane is one cache line.
type lane struct {
	statuses [6]atomic.Uint64
	in, out  atomic.Uint64
}

// of returns the lane of x. Exchanges are pooled by the core they run on, mostly, so
// where they lie tells cores apart well enough.
func (t *tally) of(x *Exchange) *lane {
	at := uint64(uintptr(unsafe.Pointer(x))) >> 8 * 0x9e3779b97f4a7c15
	return &t.lanes[at>>61]
}

// note counts x, whose record says how it went.
func (t *tally) note(x *Exchange) { t.noteAs(x, x.Record.Status/100) }

// noteRoute counts x as a route leaves it. Without a reply its handler has panicked, and
// the client is going to get a 500.
func (t *tally) noteRoute(x *Exchange) {
	class := x.Record.Status / 100
	if !x.replied {
		class = 5
	}
	t.noteAs(x, class)
}

func (t *tally) noteAs(x *Exchange, class int) {
	l, r := t.of(x), &x.Record
	if uint(class) >= uint(len(l.statuses)) {
		class = 0
	}
	l.statuses[class].Add(1)
	if r.BytesIn != 0 {
		l.in.Add(uint64(r.BytesIn))
	}
	if r.BytesOut != 0 {
		l.out.Add(uint64(r.BytesOut))
	}
}

func (t *tally) read() (requests Statuses, in, out uint64) {
	for i := range t.lanes {
		l := &t.lanes[i]
		for c := range l.statuses {
			requests[c] += l.statuses[c].Load()
		}
		in += l.in.Load()
		out += l.out.Load()
	}
	return requests, in, out
}
