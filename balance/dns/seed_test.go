// SPDX-License-Identifier: Apache-2.0

package dns_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
)

// TestSeededJitter has the times of questions follow from the seed.
func TestSeededJitter(t *testing.T) {
	run := func(seed uint64) (times []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			ns, begin := newNameServers(), time.Now()
			ns.zone(t, "web.example. 10 A 10.0.0.1")
			src := &dns.Source{Name: "web.example", Port: 80, Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial, Seed: seed,
				Edit: func(*balance.Endpoint) { times = append(times, time.Since(begin)) }}
			stop, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			require.ErrorIs(t, src.Watch(stop, func([]balance.Endpoint, error) {}), context.DeadlineExceeded)
		})
		return times
	}
	first := run(7)
	require.Greater(t, len(first), 60, "a tenth shorter at most")
	require.Less(t, len(first), 68)
	require.Equal(t, first, run(7))
	require.NotEqual(t, first, run(8))
	require.NotEqual(t, run(0), run(0))
}
