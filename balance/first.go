// SPDX-License-Identifier: Apache-2.0

package balance

// First fills one server before it uses the next, in the order of Set, so that those at
// the end can be switched off. It fills servers up to [Endpoint.MaxConns]: without it,
// the first server gets everything. Weights are ignored, except none. (HAProxy, first.)
type First struct{}

// Picker implements [Policy].
func (First) Picker(v View) Picker { return first(v.Servers) }

type first []*Server

func (p first) Pick(_ uint64, f Filter) *Server {
	for _, s := range p {
		if f.Allows(s) {
			return s
		}
	}
	return nil
}
