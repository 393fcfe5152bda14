// SPDX-License-Identifier: Apache-2.0

package penstock_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// JSON, and so slog, has the words of records and events, not numbers.
func TestWordsInJSON(t *testing.T) {
	text, err := json.Marshal(map[string]any{
		"end": l4.Termination{Cause: l4.ServerTimeout, Phase: l4.PhaseHeaders}, "front": l7.FrontHTTP2,
		"breaker": ratelimit.BreakerOpen, "ejection": health.Ejected, "event": balance.PanicBegan,
		"ends": map[l4.Cause]int{l4.Denied: 2},
	})
	require.NoError(t, err)
	require.JSONEq(t, `{"end": {"Cause": "server timeout", "Phase": "headers"}, "front": "http2",
		"breaker": "open", "ejection": "ejected", "event": "panic began", "ends": {"denied": 2}}`, string(text))
}
