// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A read gives way before it looks where that has helped, and more and more
// seldom where it has not.
func TestConnGivesWay(t *testing.T) {
	client, server := tcpPair(t)
	c := NewConn(server)
	in := &c.in
	buf := make([]byte, 16)
	answered := func() {
		_, err := client.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		n, err := c.Read(buf)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	unanswered := func() {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		_, err := c.Read(buf)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}

	answered() // whether it had to wait does not matter: nothing was known yet
	assert.True(t, in.drained)
	for _, want := range []uint8{1, 3, 7, 15, 31, 63, 64, 64} {
		unanswered()
		assert.Equal(t, want, in.skips)
		for range in.skips {
			assert.Positive(t, in.skip)
			unanswered()
		}
		assert.Zero(t, in.skip)
	}
	for in.skips > 0 { // bytes that are there at the first look, as they are on loopback once written
		answered()
	}
	answered()
	assert.Zero(t, in.skip)

	_, err := client.Write(make([]byte, 2*len(buf)))
	require.NoError(t, err)
	n, err := c.Read(buf)
	require.NoError(t, err)
	assert.Equal(t, n < len(buf), in.drained, "a full buffer says that there may be more")
}
