// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// inTime fails the test if f, which may be stuck on a mutex, does not return.
func inTime(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("hangs")
	}
}

// A func that the host gives may use what calls it.
func TestStickyForgetAsksWithoutTheLock(t *testing.T) {
	var table Sticky
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	table.Remember(a, "one")
	table.Remember(b, "one")
	table.Remember(c, "two")
	inTime(t, func() {
		n := table.Forget(func(addr netip.Addr, server string) bool {
			if addr == a {
				table.Remember(a, "two") // it has moved: it stays
			}
			return table.Len() > 0 && server == "one"
		})
		require.Equal(t, 1, n)
	})
	require.Equal(t, "two", table.Lookup(a))
	require.Empty(t, table.Lookup(b))
	require.Equal(t, "two", table.Lookup(c))
}

// OnOutcome is told of the end of a flow's lease, and may cut flows.
func TestUDPFlowEndsItsLeaseWithoutTheLock(t *testing.T) {
	var f *udpFlow
	p := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
		func(*balance.Server, balance.Outcome) { f.Cut(true, "observer") },
	}}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:53"}))
	lease, err := p.Acquire(t.Context(), balance.Request{})
	require.NoError(t, err)
	f = &udpFlow{l: &udpListener{p: &UDPProxy{Pool: p}}}
	inTime(t, func() { _, _, _ = f.finish(lease, errFlowOver) })
	require.True(t, f.over)
}
