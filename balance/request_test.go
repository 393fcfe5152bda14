// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRequestIsZero(t *testing.T) {
	require.True(t, new(Request).IsZero())
	for _, r := range []Request{{Key: 1}, {Prefer: "a"}, {Priority: -1}, {Tenant: 1}, {TenantWeight: 2}} {
		require.False(t, r.IsZero(), "%+v", r)
	}
	var r Request
	r.Avoid(new(Server))
	require.False(t, r.IsZero())
}
