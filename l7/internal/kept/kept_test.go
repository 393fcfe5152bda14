// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTableKeepsForATime(t *testing.T) {
	var tab Table[int]
	start := time.Now()
	l := Limits{Max: 100, Bytes: 1 << 20}
	_, ok := tab.Get([]byte("a"), start, l)
	require.False(t, ok)
	tab.Put([]byte("a"), 1, 8, start.Add(time.Minute), l)
	v, ok := tab.Get([]byte("a"), start.Add(59*time.Second), l)
	require.True(t, ok)
	require.Equal(t, 1, v)
	_, ok = tab.Get([]byte("a"), start.Add(time.Minute), l)
	require.False(t, ok)
	tab.Put([]byte("a"), 2, 8, start.Add(2*time.Minute), l)
	v, ok = tab.Get([]byte("a"), start.Add(time.Minute), l)
	require.True(t, ok)
	require.Equal(t, 2, v)
}

func TestTableIsBounded(t *testing.T) {
	start := time.Now()
	for _, l := range []Limits{{Max: 10, Bytes: 1 << 30}, {Max: 1 << 30, Bytes: 10 * 200 * 16}} {
		var tab Table[int]
		for i := range 10_000 {
			key := fmt.Appendf(nil, "%064d", i)
			tab.Put(key, i, 8, start.Add(time.Minute), l)
			require.LessOrEqual(t, tab.Len(), min(l.Max+1, l.Bytes/200))
			v, ok := tab.Get(key, start, l)
			require.True(t, ok)
			require.Equal(t, i, v)
			first, ok := tab.Get(fmt.Appendf(nil, "%064d", 0), start, l)
			require.True(t, ok, "what is asked for stays")
			require.Zero(t, first)
		}
	}
	var tab Table[int]
	l := Limits{Max: 10, Bytes: 16 << 10}
	tab.Put([]byte(strings.Repeat("k", 1000)), 1, 8, start.Add(time.Minute), l)
	require.Zero(t, tab.Len(), "one key does not take the room of many")
	for i := range 1000 { // of one key whose value grows
		tab.Put([]byte("a"), i, i%800, start.Add(time.Minute), l)
		require.Equal(t, 1, tab.Len())
	}
	for i := range 100 { // of many, whose values grow
		tab.Put(fmt.Appendf(nil, "%d", i%10), i, i/10*80, start.Add(time.Minute), Limits{Max: 100, Bytes: 16 << 10})
		require.LessOrEqual(t, tab.bytes, 8<<10)
	}
}
