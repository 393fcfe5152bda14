// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNegativeMaxConnsIsNone: as 0 is, also for a server that had a limit, and for one
// that comes back.
func TestNegativeMaxConnsIsNone(t *testing.T) {
	p := &Pool{Queue: Queue{Size: -1}}
	for _, limit := range []int{-1, 1, -5} {
		require.NoError(t, p.Set(Endpoint{Addr: "a:1", MaxConns: limit}))
		var leases []Lease
		for range 3 {
			if l, err := p.Acquire(t.Context(), Request{}); err == nil {
				leases = append(leases, l)
			}
		}
		want := 3
		if limit > 0 {
			want = limit
		}
		require.Len(t, leases, want)
		require.Equal(t, max(limit, 0), p.Explain()[0].Limit)
		for _, l := range leases {
			l.Done(Outcome{})
		}
	}
	l, err := p.Acquire(t.Context(), Request{})
	require.NoError(t, err)
	require.NoError(t, p.Set())
	require.NoError(t, p.Set(Endpoint{Addr: "a:1", MaxConns: -1}))
	again, err := p.Acquire(t.Context(), Request{})
	require.NoError(t, err)
	l.Done(Outcome{})
	again.Done(Outcome{})
}
