// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Reply editors are told the length that a handler of net/http has said.
func TestEditorsSeeTheLengthOfAForeignReply(t *testing.T) {
	var seen []int64
	h := HandlerFunc(func(x *Exchange) {
		x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { seen = append(seen, r.ContentLength) }))
		Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if length := r.URL.RawQuery; length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = io.WriteString(w, "hello")
		}), x)
	})
	onBoth(t, func(*site) http.Handler { return h }, func(s *site) {
		seen = nil
		require.Equal(s, "hello", s.get("/?5").body)
		require.Equal(s, "hello", s.get("/").body)
		require.Empty(s, s.get("/?5", "Method", "HEAD").body)
		require.Equal(s, []int64{5, -1, 5}, seen)
	})
}
