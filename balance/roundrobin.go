// SPDX-License-Identifier: Apache-2.0

package balance

// RoundRobin gives every server its turns: in each aligned cycle of as many picks as
// the weights (divided by what they have in common) add up to, every server gets
// exactly its weight, spread out over the cycle. With equal weights that is the order
// of Set. Servers without room are passed over.
//
// No weight that a server may have is rounded. Only during a slow start, when weights
// count in hundredths, those that are more than 262144 (2^18) hundredths apart are, by
// less than that part of the largest.
type RoundRobin struct{}

// Picker implements [Policy].
func (RoundRobin) Picker(v View) Picker {
	return &roundRobin{view: v, turns: newTurns(v.Weights)}
}

type roundRobin struct {
	view  View
	turns turns
}

func (p *roundRobin) Pick(_ uint64, f Filter) *Server {
	servers := p.view.Servers
	var i int
	// Passed over servers lose their turn, so that the load of a full one is spread
	// over all others and not over its neighbour alone.
	for range 4 {
		i = p.turns.at(p.view.Cursor.Next())
		if s := servers[i]; f.Allows(s) {
			return s
		}
	}
	for range servers {
		if i++; i == len(servers) {
			i = 0
		}
		if s := servers[i]; f.Allows(s) {
			return s
		}
	}
	return nil
}
