// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// ask returns how long the first token of a prompt takes.
func ask(t *testing.T, s *Server, prompt []uint64) (first time.Duration) {
	begin := time.Now()
	require.NoError(t, s.Generate(t.Context(), prompt, 3, func(i int) error {
		if i == 0 {
			first = time.Since(begin)
		}
		return nil
	}))
	require.Equal(t, first+40*time.Millisecond, time.Since(begin))
	return first
}

// TestCache: what was read before need not be read again, up to where prompts differ, while
// there is room for it.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Blocks: 10}
		story := strings.Repeat("x", 4*blockBytes)
		require.Equal(t, 16*time.Millisecond, ask(t, s, Split(story)))
		require.Equal(t, 8*time.Millisecond, ask(t, s, Split(story+strings.Repeat("y", 2*blockBytes))))
		require.Equal(t, 8*time.Millisecond, ask(t, s, Split(story+strings.Repeat("z", 2*blockBytes))))
		require.Equal(t, 4*time.Millisecond, ask(t, s, Split(story)), "one block is read in any case")
		require.Equal(t, 40*time.Millisecond, ask(t, s, Split(strings.Repeat("other", 2*blockBytes))))
		require.Equal(t, 16*time.Millisecond, ask(t, s, Split(story)), "the other one has taken its place")
		require.Equal(t, Figures{Blocks: 10, Hits: 12, Asked: 4 + 6 + 6 + 4 + 10 + 4}, s.Figures())
	})
}

// TestQueue: beyond the batch requests wait, and leave if the client does.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Batch: 2}
		ctx, cancel := context.WithCancel(t.Context())
		for range 5 {
			go func() { _ = s.Generate(ctx, make([]uint64, 16), 1000, func(int) error { return nil }) }()
		}
		synctest.Wait()
		f := s.Figures()
		require.Equal(t, []int{3, 2, 2 * (16 + 62)}, []int{f.Waiting, f.Running, f.InUse})
		cancel()
		synctest.Wait()
		f = s.Figures()
		require.Equal(t, []int{0, 0, 0}, []int{f.Waiting, f.Running, f.InUse})
	})
}

func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		serve := func(method, target, body string) (int, string) {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(method, target, io.NopCloser(strings.NewReader(body))))
			return w.Code, w.Body.String()
		}
		_, body := serve("POST", "/v1/completions", `{"prompt": "Hello", "max_tokens": 2}`)
		require.Contains(t, body, `"text":"word0 word1 "`)
		_, body = serve("POST", "/v1/chat/completions", `{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "stream": true}`)
		require.Equal(t, 3, strings.Count(body, "data: "))
		require.True(t, strings.HasSuffix(body, "data: [DONE]\n\n"))
		_, body = serve("GET", "/metrics", "")
		require.Contains(t, body, "\nvllm:num_requests_waiting{")
		for target, want := range map[string]int{"/health": 200, "/other": 404, "/v1/completions": 400} {
			code, _ := serve("POST", target, "no JSON")
			require.Equal(t, want, code, target)
		}
	})
}
