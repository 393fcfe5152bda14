// SPDX-License-Identifier: Apache-2.0

package balance

// RoundRobin gives every server turns by weight. A cycle has as many picks as the sum
// of the weights, divided by their greatest common divisor; in each aligned cycle
// every server gets exactly its weight, spread over the cycle. With equal weights the
// order is that of Set. Full servers are skipped. A retry takes a turn too: if one of two
// servers fails and calls come one at a time, each may go to that one first, as the retry of
// the last has taken the other's turn.
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
	// Skipped servers lose their turn, so that the load of a full one is spread
	// over all others and not only over the next one.
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
