// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Connections leave a list in any order, and only once.
func TestByteConns(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 2, 1, 1, 0, 0, 3, 3}} {
		var l byteConns
		var in []*byteConn // the last one that was added first
		conns := make([]*byteConn, 4)
		for i := range conns {
			conns[i] = new(byteConn)
			l.add(conns[i])
			in = slices.Insert(in, 0, conns[i])
		}
		require.Equal(t, 4, l.n)
		for _, i := range order {
			l.remove(conns[i])
			in = slices.DeleteFunc(in, func(c *byteConn) bool { return c == conns[i] })
			require.Equal(t, len(in), l.n)
			require.True(t, slices.Equal(in, slices.Collect(l.all())), "%v without %d", order, i)
		}
		l.add(conns[0])
		for c := range l.all() {
			require.Same(t, conns[0], c)
			break
		}
	}
}
