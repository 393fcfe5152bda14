// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A read gives way before it looks where that has helped, and seldom where it
// has not.
func TestConnGivesWay(t *testing.T) {
	client, server := tcpPair(t)
	c := NewConn(server)
	in := &c.yields
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
	for range 3 {
		for left := in.skip; left > 0; left-- {
			assert.Equal(t, left, in.skip)
			unanswered()
		}
		assert.Zero(t, in.credit)
		unanswered()
		assert.Equal(t, int8(tryAgain-1), in.skip, "tried, in vain")
	}
	for in.credit < maxCredit { // bytes that are there at the first look, as they are on loopback once written
		answered()
	}
	for left := in.credit; left > 0; left-- {
		assert.Equal(t, left, in.credit)
		unanswered()
	}

	require.NoError(t, c.SetReadDeadline(time.Time{}))
	_, err := client.Write(make([]byte, 2*len(buf)))
	require.NoError(t, err)
	n, err := c.Read(buf)
	require.NoError(t, err)
	assert.Equal(t, n < len(buf), in.drained, "a full buffer says that there may be more")
}
