// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWordsInJSON: JSON and log lines have the words, not numbers, and JSON is read again.
func TestWordsInJSON(t *testing.T) {
	type all struct {
		Admin    Admin
		Health   Health
		Reporter Reporter
		State    State
		Class    Class
		In       map[State]int
	}
	for v := range uint8(16) {
		was := all{Admin(v % 3), Health(v % 4), Reporter(v), State(v % uint8(states)), Class(v % uint8(classes)), map[State]int{StateDrain: 1}}
		if was.Reporter > Discovery && was.Reporter < HostReporter {
			was.Reporter = HostReporter // those between have no word
		}
		text, err := json.Marshal(was)
		require.NoError(t, err)
		var got all
		require.NoError(t, json.Unmarshal(text, &got), "%s", text)
		require.Equal(t, was, got)
	}
	text, err := json.Marshal(all{Drain, Down, HostReporter + 1, StateUnweighted, ConnectTimeout, map[State]int{StateDrain: 1}})
	require.NoError(t, err)
	require.JSONEq(t, `{"Admin": "drain", "Health": "down", "Reporter": "host reporter 1", "State": "unweighted", "Class": "connect timeout", "In": {"drain": 1}}`, string(text))

	for _, h := range []func(b *bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(h(&b)).Info("", "health", Down, "state", StateMaint, "class", Reset)
		for _, word := range []string{"down", "maint", "reset"} {
			require.Contains(t, b.String(), word)
		}
	}
	var h Health
	require.EqualError(t, h.UnmarshalText([]byte("dead")), `balance.Health "dead": must be one of up, stopping, down, unknown`)
	require.Error(t, h.UnmarshalText(nil))
}
