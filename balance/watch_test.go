// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestWatch(t *testing.T) {
	p := &balance.Pool{}
	a := balance.Endpoint{Addr: "a:1"}
	sub := p.Subset(func(balance.Endpoint) bool { return true })
	var calls, members, subCalls int
	stop := p.Watch(func() {
		calls++
		members = 0
		for range p.All() {
			members++
		}
	})
	sub.Watch(func() { subCalls++ })

	require.NoError(t, p.Set(a))
	require.Equal(t, []int{1, 1}, []int{calls, members}, "after the set is in force")
	require.NoError(t, p.Set(a))
	require.Equal(t, 1, calls, "nothing changed")
	require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1", Weight: 3}))
	require.Equal(t, 2, calls, "an endpoint changed")
	stop()
	require.NoError(t, p.Set())
	require.Equal(t, []int{2, 3}, []int{calls, subCalls})
}

func TestUnproven(t *testing.T) {
	p := &balance.Pool{Unproven: true}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}))
	_, err := p.Acquire(t.Context(), balance.Request{})
	require.ErrorIs(t, err, balance.ErrNoServer)
	p.Server("a").Report(balance.Check, balance.Up, "passed")
	lease, err := p.Acquire(t.Context(), balance.Request{})
	require.NoError(t, err)
	lease.Done(balance.Outcome{})
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "b", Addr: "b:1"}))
	require.Equal(t, 1, p.Usable(), "who stays keeps what was found")
}
