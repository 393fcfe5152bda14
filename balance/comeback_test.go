// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestServerThatComesBackIsAsTheEndpointSays has a server leave and come back, with a
// lease open meanwhile and without: nothing that was said of it is left.
func TestServerThatComesBackIsAsTheEndpointSays(t *testing.T) {
	for _, open := range []bool{false, true} {
		p := &balance.Pool{}
		a, b := balance.Endpoint{Name: "a", Addr: "a:1", Weight: 4, MaxConns: 7}, balance.Endpoint{Name: "b", Addr: "b:1"}
		require.NoError(t, p.Set(a, b))
		s := p.Server("a")
		var l balance.Lease
		if open {
			var err error
			l, err = p.Acquire(t.Context(), balance.Request{Prefer: "a"})
			require.NoError(t, err)
		}
		require.NoError(t, s.SetWeight(0))
		require.NoError(t, s.SetMaxConns(1))
		s.SetTrial(true)
		s.SetAdmin(balance.Drain, "by hand")
		s.Report(balance.Check, balance.Down, "refused")
		require.NoError(t, p.Set(b))
		require.NoError(t, p.Set(a, b))

		e := p.Explain()[0]
		require.Equal(t, open, e.Server == s, "the handle lives on with its leases")
		require.Equal(t, balance.StateUp, e.State)
		require.Equal(t, "a: used", e.String())
		require.EqualValues(t, 4, e.Weight)
		require.Equal(t, 7, e.Limit)
		require.Empty(t, e.Reports)
		require.Equal(t, balance.Operator{}, e.Operator)
		if open {
			require.Equal(t, 1, s.InFlight())
			l.Done(balance.Outcome{})
		}
	}
}
