// SPDX-License-Identifier: Apache-2.0

package balancetest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/balancetest"
)

// The bounds below are what the policies state. Random draws are off by about 3 /
// sqrt(picks of the server); tables and rings by how they place servers.
func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy balance.Policy
		law    balancetest.Law
	}{
		{"RoundRobin", balance.RoundRobin{}, balancetest.Law{Share: 0.001}},
		{"Random", balance.Random{}, balancetest.Law{Share: 0.1}},
		{"TwoChoices", balance.TwoChoices{}, balancetest.Law{Share: 0.02}},
		{"TwoChoices5", balance.TwoChoices{N: 5}, balancetest.Law{Share: 0.02}},
		{"LeastConn", balance.LeastConn{}, balancetest.Law{Share: 0.001}},
		{"First", balance.First{}, balancetest.Law{}},
		{"PeakEWMA", balance.PeakEWMA{}, balancetest.Law{Share: 0.02}},
		{"Ring", balance.Ring{}, balancetest.Law{Share: 0.25, Keyed: true}},
		{"Maglev", balance.Maglev{}, balancetest.Law{Share: 0.1, Keyed: true, Moved: 0.02}},
		{"Rendezvous", balance.Rendezvous{}, balancetest.Law{Share: 0.1, Keyed: true}},
		{"Ring bounded", balance.Ring{Bound: 1.25}, balancetest.Law{Share: 0.26, Keyed: true}},
		{"Maglev bounded", balance.Maglev{Bound: 1.25}, balancetest.Law{Share: 0.26, Keyed: true, Moved: 0.02}},
		{"Rendezvous bounded", balance.Rendezvous{Bound: 1.25}, balancetest.Law{Share: 0.26, Keyed: true}},
		{"Scored", balance.Scored{}, balancetest.Law{Share: 0.02}},
		{"Scored by a number that nobody reports", balance.Scored{Scorers: []balance.Scorer{{Metric: "queue", Weight: 9}}}, balancetest.Law{Share: 0.02}},
		{"Scored with an affinity that is a moment's", balance.Scored{Affinity: 3}, balancetest.Law{Share: 0.25}},
		{"LeastConn with a Bound of its own", balance.PolicyFunc(newCapped), balancetest.Law{}},
		{"two of them, one after the other", balance.PolicyFunc(newHalves), balancetest.Law{}},
		{"default", nil, balancetest.Law{Share: 0.02}},
	} {
		t.Run(test.name, func(t *testing.T) { balancetest.TestPolicy(t, test.policy, test.law) })
	}
}

// capped is LeastConn with a Bound that it knows nothing of.
type capped struct{ balance.Picker }

func newCapped(v balance.View) balance.Picker { return capped{balance.LeastConn{}.Picker(v)} }

func (capped) Bound(*balance.Server) int { return 3 }

// halves picks from the first half of the servers, and from the second if the filter
// allows none of those.
type halves struct{ first, second capped }

func newHalves(v balance.View) balance.Picker {
	n := len(v.Servers) / 2
	if n == 0 {
		return newCapped(v)
	}
	first, second := v, v
	first.Servers, first.Weights = v.Servers[:n], v.Weights[:n]
	second.Servers, second.Weights = v.Servers[n:], v.Weights[n:]
	if v.Warming != nil {
		first.Warming, second.Warming = v.Warming[:n], v.Warming[n:]
	}
	return halves{newCapped(first).(capped), newCapped(second).(capped)}
}

func (h halves) Bound(s *balance.Server) int { return h.first.Bound(s) }

func (h halves) Pick(key uint64, f balance.Filter) *balance.Server {
	if s := h.first.Pick(key, f); s != nil {
		return s
	}
	return h.second.Pick(key, f)
}

// TestEndpointsOfALaw has a policy see what Law.Endpoint sets, in every pool of the suite
// with more than one server, and keeps what the tests set themselves.
func TestEndpointsOfALaw(t *testing.T) {
	mixed, other := 0, 0
	policy := balance.PolicyFunc(func(v balance.View) balance.Picker {
		zones := make(map[string]bool)
		for _, s := range v.Servers {
			zones[s.Endpoint().Zone] = true
		}
		if len(zones) == 2 {
			mixed++
		} else if len(v.Servers) > 1 {
			other++
		}
		return balance.Ring{}.Picker(v)
	})
	balancetest.TestPolicy(t, policy, balancetest.Law{Share: 0.25, Keyed: true, Endpoint: func(i int) balance.Endpoint {
		return balance.Endpoint{Zone: []string{"a", "b"}[i%2]}
	}})
	require.Greater(t, mixed, 10)
	require.Zero(t, other)
}
