// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// The 500 that a panic is answered with is ours alone: editors were registered for the
// reply of a handler that did not come to one, and one of them may have been what
// panicked.
func TestEditorsDoNotRunForThe500OfAPanic(t *testing.T) {
	edited := 0
	onBoth(t, func(*site) http.Handler {
		edited = 0
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
				edited++
				r.Header.Set("X-Edited", "yes")
			}))
			if x.Path == "/panic" {
				panic("test")
			}
			x.Respond(200, nil, "ok")
		})
	}, func(s *site) {
		if !s.byByte { // a panic is the host's server's to deal with, which ends the connection
			_, err := s.ask(s.client, "/panic", "")
			require.Error(s, err)
			require.Zero(s, edited)
			return
		}
		require.Equal(s, "yes", s.get("/").Header.Get("X-Edited"))
		a := s.get("/panic")
		require.Equal(s, 500, a.StatusCode)
		require.Empty(s, a.Header.Get("X-Edited"))
		require.Equal(s, 1, edited)
	})
}
