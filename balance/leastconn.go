// SPDX-License-Identifier: Apache-2.0

package balance

// LeastConn picks the server with the least work taken on, that is leases and requests
// in its own queue, relative to its weight: it compares (work+1)/weight. An idle server
// comes before any busy one, whatever its weight, but for one in slow start. Among
// equals it takes turns.
//
// Up to 256 servers a pick looks at all of them; above, a tree of winners is kept up to
// date. It suits long work of unequal length: TCP sessions, queries, streams. (HAProxy,
// leastconn.)
type LeastConn struct{}

// Picker implements [Policy].
func (LeastConn) Picker(v View) Picker {
	if len(v.Servers) > leastScanMax {
		return newLeastTree(v)
	}
	return &leastScan{view: v}
}

// leastScanMax is how many servers are looked at one by one.
const leastScanMax = 256

// leastScan looks at every server.
type leastScan struct{ view View }

func (p *leastScan) Pick(_ uint64, f Filter) *Server {
	v := &p.view
	i := int(v.Cursor.Next() % uint64(len(v.Servers)))
	var best *Server
	var least rank
	for range v.Servers {
		if s := v.Servers[i]; f.Allows(s) {
			if r := rankOf(s.load(), v.Weights[i], v.warming(i)); best == nil || r.less(least) {
				best, least = s, r
			}
		}
		if i++; i == len(v.Servers) {
			i = 0
		}
	}
	return best
}

// A rank is what servers are compared by: load per weight.
type rank struct{ load, weight uint64 }

// rankOf returns the rank of a server.
func rankOf(load int64, weight int, warming bool) rank {
	if load <= 0 && !warming {
		return rank{0, 1} // idle
	}
	return rank{uint64(load) + 1, uint64(weight)}
}

func (r rank) less(o rank) bool { return r.load*o.weight < o.load*r.weight }
