// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestTrial(t *testing.T) {
	p := &balance.Pool{Queue: balance.Queue{Size: -1}}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "b", Addr: "b:1"}))
	p.Server("a").SetTrial(true)
	var leases []balance.Lease
	count := func() (a int) {
		for range 10 {
			l, err := p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
			leases = append(leases, l)
		}
		return p.Server("a").InFlight()
	}
	require.Equal(t, 1, count())
	p.Server("a").SetTrial(false)
	require.Greater(t, count(), 5, "two choices fill the emptier one")
	for _, l := range leases {
		l.Done(balance.Outcome{})
	}
}
