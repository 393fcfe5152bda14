// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/ratelimit"
)

func TestGate(t *testing.T) {
	var places *ratelimit.Concurrency
	onBoth(t, func(*site) http.Handler {
		places = &ratelimit.Concurrency{Max: 1, MaxQueue: 1}
		return &Gate{Places: places, Next: HandlerFunc(func(x *Exchange) {
			time.Sleep(time.Second)
			x.Respond(204, nil, "")
		})}
	}, func(s *site) {
		start := time.Now()
		done := make(chan time.Duration, 2)
		for _, from := range []string{"10.9.9.7", "10.9.9.8"} {
			go func() {
				_, _ = s.ask(s.from(from), "/", "")
				done <- time.Since(start)
			}()
			time.Sleep(time.Millisecond)
		}
		a := s.get("/")
		require.Equal(s, 503, a.StatusCode)
		require.Equal(s, "1", a.Header.Get("Retry-After"))
		require.Equal(s, time.Second, (<-done).Round(10*time.Millisecond))
		require.Equal(s, 2*time.Second, (<-done).Round(10*time.Millisecond))
		require.Zero(s, places.Held())
	})
}
