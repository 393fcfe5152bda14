// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStickyOfNoEntries remembers nothing.
func TestStickyOfNoEntries(t *testing.T) {
	table := &Sticky{Max: -1}
	table.Remember(netip.MustParseAddr("192.0.2.1"), "one")
	require.Zero(t, table.Len())
	require.Empty(t, table.Lookup(netip.MustParseAddr("192.0.2.1")))
}
