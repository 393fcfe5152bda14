// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestLightOneOfTwoIsComparedEachTime has two servers of which the second is drawn once
// in a thousand times: it must be compared nevertheless, or its load is left to chance.
func TestLightOneOfTwoIsComparedEachTime(t *testing.T) {
	for _, policy := range []balance.Policy{balance.TwoChoices{}, balance.PeakEWMA{}} {
		p := &balance.Pool{Policy: policy, Seed: 1}
		require.NoError(t, p.Set(balance.Endpoint{Name: "heavy", Addr: "h:1", Weight: 1000}, balance.Endpoint{Name: "light", Addr: "l:1"}))
		heavy, light := p.Server("heavy"), p.Server("light")
		for _, name := range []string{"heavy", "light"} {
			l, err := p.Acquire(t.Context(), balance.Request{Prefer: name})
			require.NoError(t, err)
			l.Done(balance.Outcome{Latency: 1e6})
		}
		for range 50000 { // so that the light one is far behind
			_, err := p.Acquire(t.Context(), balance.Request{Prefer: "heavy"})
			require.NoError(t, err)
		}
		require.Equal(t, 50000, heavy.InFlight())
		for range 1200 {
			_, err := p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
		}
		require.InDelta(t, 36, light.InFlight(), 10, "%T", policy)
	}
}
