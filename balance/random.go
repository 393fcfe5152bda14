// SPDX-License-Identifier: Apache-2.0

package balance

// Random draws a server by weight. It keeps no state between picks, so independent
// balancers do not synchronize. Prefer [TwoChoices] unless the number of leases says
// nothing about the load.
type Random struct{}

// Picker implements [Policy].
func (Random) Picker(v View) Picker { return &random{view: v, draw: newLottery(v.Weights)} }

type random struct {
	view View
	draw lottery
}

func (p *random) Pick(_ uint64, f Filter) *Server {
	for range 8 {
		if s := p.view.Servers[p.draw.draw(p.view.Rand.Uint64())]; f.Allows(s) {
			return s
		}
	}
	return p.view.firstFrom(p.view.Rand.IntN(len(p.view.Servers)), f)
}
