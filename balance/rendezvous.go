// SPDX-License-Identifier: Apache-2.0

package balance

import "math"

// Rendezvous gives every server a score made of the key and its name, and picks the
// highest. When a server leaves only its own keys move, evenly to all others, and the
// order of scores is the order of fallback. It needs no table, but each pick computes
// a score for every server: use it for up to some dozens, and [Maglev] or [Ring] for
// more.
//
// A request without a key is served round robin.
//
// (Thaler, Ravishankar: Using Name-Based Mappings to Increase Hit Rates, 1998; weights
// as in Schindler, Schomaker: Weighted Distributed Hash Tables, 2005.)
type Rendezvous struct {
	Bound float64 // most load of a server, as a multiple of its fair part; 0 means no bound, 1.25 to 2 is usual
}

// Picker implements [Policy].
func (r Rendezvous) Picker(v View) Picker {
	p := &rendezvous{hashed: newHashed(v, r.Bound), uniform: v.Uniform(), names: make([]uint64, len(v.Servers))}
	for i, s := range v.Servers {
		p.names[i] = Hash(s.Name())
	}
	return p.finish(p)
}

type rendezvous struct {
	hashed
	uniform bool
	names   []uint64 // hashes
}

func (p *rendezvous) Pick(key uint64, f Filter) *Server {
	if key == 0 {
		return p.keyless(f)
	}
	if p.uniform {
		return p.pickUniform(key, f)
	}
	var best *Server
	var most float64
	for i, name := range p.names {
		// u is uniform in (0, 1); the winner of -w/ln(u) is i with probability w/sum.
		u := (float64(mix(key^name)>>11) + 0.5) / (1 << 53)
		score := float64(p.view.Weights[i]) / -math.Log(u)
		if s := p.view.Servers[i]; (best == nil || score > most) && p.allows(s, f) {
			best, most = s, score
		}
	}
	return best
}

// pickUniform is Pick without the logarithms, for equal weights.
func (p *rendezvous) pickUniform(key uint64, f Filter) *Server {
	var best *Server
	var most uint64
	for i, name := range p.names {
		score := mix(key ^ name)
		if s := p.view.Servers[i]; (best == nil || score>>11 > most>>11) && p.allows(s, f) {
			best, most = s, score
		}
	}
	return best
}
