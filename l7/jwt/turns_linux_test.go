// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7/internal/beside"
)

// Signatures that are verified at once do not hold up what is ready on a connection: data
// comes on it as the first of them is done.
func TestOpenConnectionsComeBetweenSignatures(t *testing.T) {
	const n = 64
	i := newIssuer(t)
	h, token := i.verifier(), i.token()
	h.KeepFor = -1
	require.LessOrEqual(t, beside.Done(t, n, func() {
		if _, wrong := h.verify(t.Context(), token, time.Now()); wrong != nil {
			t.Error(wrong)
		}
	}), int32(n/2))
}
