// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"sync/atomic"
	"unsafe"

	"github.com/penstock-lb/penstock/l4"
)

// Statuses counts exchanges by the first digit of their status; 0 counts those
// without a reply.
type Statuses [6]uint64

// Total returns the sum.
func (s Statuses) Total() uint64 {
	var sum uint64
	for _, n := range s {
		sum += n
	}
	return sum
}

// Stats are figures of a Server since it was made. All but Open and Parked only
// grow.
type Stats struct {
	Open            int      // connections, including those of the standard front and upgraded ones
	Parked          int      // idle connections without a goroutine, part of Open
	Accepted        uint64   // connections
	AcceptErrors    uint64   // failures of Accept
	AtLimit         uint64   // times that accepting had to wait, or an attached front refused a connection, because MaxConns were open
	Handshakes      uint64   // of TLS
	HandshakeErrors uint64   // failed handshakes
	Requests        Statuses // that have ended, including those that could not be parsed
	Ends            l4.Ends  // by their cause; l4.Denied are those refused by a limit or a rule
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
// cache lines, so that cores do not contend for one.
type tally struct{ lanes [8]lane }

// A lane is one cache line.
type lane struct {
	statuses [6]atomic.Uint64
	in, out  atomic.Uint64
}

// of returns the lane of x, by its address. Most exchanges are reused on the core
// that they last ran on, so addresses tell cores apart well enough.
func (t *tally) of(x *Exchange) *lane {
	at := uint64(uintptr(unsafe.Pointer(x))) >> 8 * 0x9e3779b97f4a7c15
	return &t.lanes[at>>61]
}

// note counts x by its record.
func (t *tally) note(x *Exchange) { t.noteAs(x, x.Record.Status/100) }

// noteRoute counts x when it leaves a route. If there is no reply, the handler has
// panicked and the client will get a 500.
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
