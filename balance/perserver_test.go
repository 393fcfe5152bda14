// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPerServerLivesAsLongAsTheServer: through changes of its endpoint and of the set,
// and each PerServer has its own.
func TestPerServerLivesAsLongAsTheServer(t *testing.T) {
	p := &Pool{}
	require.NoError(t, p.Set(Endpoint{Addr: "a:1"}, Endpoint{Addr: "b:1"}))
	var one, two PerServer[atomic.Int64]
	a, b := p.Server("a:1"), p.Server("b:1")
	one.Of(a).Store(1)
	one.Of(b).Store(2)
	two.Of(a).Store(3)
	require.NoError(t, p.Set(Endpoint{Addr: "c:1"}, Endpoint{Addr: "a:1", Weight: 7}))
	a.Report(Check, Down, "test")
	require.EqualValues(t, 1, one.Of(p.Server("a:1")).Load())
	require.EqualValues(t, 3, two.Of(p.Server("a:1")).Load())
	require.EqualValues(t, 2, one.Of(b).Load())
	require.Zero(t, one.Of(p.Server("c:1")).Load())
	require.Zero(t, testing.AllocsPerRun(100, func() { one.Of(a).Add(1); two.Of(a).Add(1) }))
}

// TestPerServerIsOneForAll: callers that ask at once are given the same T.
func TestPerServerIsOneForAll(t *testing.T) {
	p := &Pool{}
	require.NoError(t, p.Set(Endpoint{Addr: "a:1"}))
	var kept [8]PerServer[atomic.Int64]
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range kept {
				kept[i].Of(p.Server("a:1")).Add(1)
			}
		})
	}
	group.Wait()
	for i := range kept {
		require.EqualValues(t, 8, kept[i].Of(p.Server("a:1")).Load())
	}
	// One that is late sees that another was faster.
	s, late := p.Server("a:1"), new(PerServer[int])
	old := s.values.Load()
	first := late.Of(s)
	require.Nil(t, late.add(s, old))
	require.Same(t, first, late.Of(s))
}
