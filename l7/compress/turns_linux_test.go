// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7/internal/beside"
)

// Pieces that are compressed at once do not hold up what is ready on a connection: data
// comes on it as the first of them is done.
func TestOpenConnectionsComeBetweenPieces(t *testing.T) {
	const n = 64
	h := &Replies{}
	piece := bytes.Repeat([]byte("some text "), pieceBytes/10)
	h.pools[zstdCoding].Put(h.compressor(zstdCoding))
	require.LessOrEqual(t, beside.Done(t, n, func() {
		r := &reply{h: h, coding: zstdCoding}
		if _, err := io.Copy(io.Discard, r.compress(bytes.NewReader(piece))); err != nil {
			t.Error(err)
		}
	}), int32(n/2))
}
