// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// piecesConn gives pieces, and the last one together with an error.
type piecesConn struct {
	net.Conn
	pieces []string
	err    error
}

func (c *piecesConn) Read(p []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, c.err
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; c.pieces[0] == "" {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return n, c.err
	}
	return n, nil
}

// Whatever is used or not between two reads, no byte is lost, moved or read twice,
// and an error that comes with bytes is returned behind them.
func TestInputKeepsBytes(t *testing.T) {
	want := strings.Repeat("0123456789abcdef", 16<<10) // of which a buffer holds a part
	gone := errors.New("gone")
	for _, use := range []int{0, 999, 8 << 10, 1 << 20} {
		for name, fill := range map[string]func(*input, *l4.Conn, *buffers) error{"fill": (*input).fill, "fillBulk": (*input).fillBulk} {
			var b buffers
			b.setSizes()
			c := l4.NewConn(&piecesConn{pieces: []string{want[:3], want[3:5000], want[5000:]}, err: gone})
			var in input
			var got strings.Builder
			for {
				err := fill(&in, c, &b)
				if err != nil {
					require.Equal(t, gone, err)
					break
				}
				n := min(use, len(in.bytes()))
				got.Write(in.bytes()[:n])
				in.use(n)
				in.consumed(&b)
			}
			got.Write(in.bytes())
			require.True(t, got.String() == want, "%s, %d used at a time: %d bytes of %d", name, use, got.Len(), len(want))
			in.release(&b)
			require.Zero(t, in)
			require.Equal(t, headBuffer, cap(b.pool.Get().B))
			require.Equal(t, bulkBuffer, cap(b.bulk.Get().B))
		}
	}
}

// Without bytes no buffer is held.
func TestInputHoldsNothing(t *testing.T) {
	var b buffers
	b.setSizes()
	var in input
	require.True(t, in.empty())
	require.Empty(t, in.bytes())
	require.Equal(t, io.EOF, in.fill(l4.NewConn(&piecesConn{err: io.EOF}), &b))
	require.Zero(t, in)
	require.NoError(t, in.fill(l4.NewConn(&piecesConn{pieces: []string{"ab", "c"}}), &b))
	in.use(1)
	in.consumed(&b)
	require.Equal(t, "b", string(in.bytes()))
	in.use(1)
	require.True(t, in.empty())
	in.consumed(&b)
	require.Zero(t, in)
}
