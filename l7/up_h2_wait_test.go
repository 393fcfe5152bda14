// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCutWhileRoomComes has a request wait for the SETTINGS of a connection that is cut: the
// end of its streams makes room before the reader of the connection has ended, and the
// request must not dial the server that was cut.
func TestCutWhileRoomComes(t *testing.T) {
	h := &upHost{up: &Upstream{}}
	c := &h2Conn{host: h, settled: make(chan struct{})}
	w := h2Wait{host: h}
	defer w.end()
	require.True(t, w.begin())
	w.room.wakeOne()
	require.NoError(t, c.awaitSettings(t.Context(), &w, &try{}))

	reason := "drain deadline"
	c.reason.Store(&reason)
	w.room.wakeOne()
	cut := new(cutError)
	require.ErrorAs(t, c.awaitSettings(t.Context(), &w, &try{}), &cut)
}
