// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7/internal/beside"
)

// Handshakes that begin at once do not hold up what is ready on a connection: data comes
// on it as the first of them goes on.
func TestOpenConnectionsComeBetweenHandshakes(t *testing.T) {
	const n = 64
	cfg := forHTTP3(&tls.Config{Certificates: []tls.Certificate{{}}})
	require.LessOrEqual(t, beside.Done(t, n, func() {
		if chosen, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{}); chosen != nil || err != nil {
			t.Error(chosen, err)
		}
	}), int32(n/2))
}
