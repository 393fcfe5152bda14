// SPDX-License-Identifier: Apache-2.0

package balance

// LeastConn picks the server with the least work, that is leases and requests in its
// own queue, relative to its weight. Servers take turns by weight, as in [RoundRobin].
// The server whose turn it is gives way to another that would not have more work for
// its weight even with this lease:
//
//	(work(other) + 1) / weight(other) <= work / weight
//
// Of several it is the least of them. So a server of equal weight with less work is
// always preferred, and with little to do each has its share by weight. Work is compared
// in whole leases: a server whose share of all that is in flight is near one lease may get
// two fifths less or more than that share.
//
// With up to 256 servers a pick compares all of them, if the one whose turn it is has
// work; with more, it keeps a tournament tree. It suits long work of unequal length:
// TCP sessions, queries, streams. (HAProxy, leastconn; nginx, least_conn.)
type LeastConn struct{}

// Picker implements [Policy].
func (LeastConn) Picker(v View) Picker {
	if len(v.Servers) > leastScanMax {
		return newLeastTree(v)
	}
	return &leastScan{turnOrder{v, newTurns(v.Weights)}}
}

// leastScanMax is how many servers are looked at one by one.
const leastScanMax = 256

// A turnOrder says whose turn it is.
type turnOrder struct {
	view  View
	turns turns
}

// next returns the index of the server whose turn it is, and its work. If f rejects
// those of a few turns it is -1. The turn is the number of the last one.
func (l *turnOrder) next(f Filter) (i int, work int64, turn uint64) {
	for range 4 {
		turn = l.view.Cursor.Next()
		if i = l.turns.at(turn); f.Allows(l.view.Servers[i]) {
			return i, l.view.Servers[i].load(), turn
		}
	}
	return -1, 0, turn
}

// rank returns the rank of server i if it had more leases than it has.
func (l *turnOrder) rank(i int, more int64) rank {
	return rank{uint64(max(l.view.Servers[i].load(), 0) + more), uint64(l.view.Weights[i])}
}

// leastScan looks at every server.
type leastScan struct{ turnOrder }

func (p *leastScan) Pick(_ uint64, f Filter) *Server {
	v := &p.view
	turn, work, k := p.next(f)
	if turn >= 0 && work <= 0 {
		return v.Servers[turn]
	}
	best, least := turn, rank{}
	if turn >= 0 {
		least = rank{uint64(work), uint64(v.Weights[turn])}
	}
	i := int(k % uint64(len(v.Servers)))
	for range v.Servers {
		if i != turn && f.Allows(v.Servers[i]) {
			if r := p.rank(i, 1); best < 0 || r.less(least) || best == turn && !least.less(r) {
				best, least = i, r
			}
		}
		if i++; i == len(v.Servers) {
			i = 0
		}
	}
	if best < 0 {
		return nil
	}
	return v.Servers[best]
}

// A rank is what servers are compared by: load per weight.
type rank struct{ load, weight uint64 }

func (r rank) less(o rank) bool { return r.load*o.weight < o.load*r.weight }
