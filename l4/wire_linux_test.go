// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// wantPipes checks that data went by splice, and that the pipes were given
// back.
func wantPipes(t *testing.T, s *Server) {
	t.Helper()
	pipes := 0
	for _, p := range s.state.park.parkers {
		p.mu.Lock()
		require.LessOrEqual(t, len(p.pipes), sparePipes)
		pipes += len(p.pipes)
		p.mu.Unlock()
	}
	require.NotZero(t, pipes)
}
