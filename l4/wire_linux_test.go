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
	p := s.parker()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.NotEmpty(t, p.pipes)
	require.LessOrEqual(t, len(p.pipes), sparePipes)
}
