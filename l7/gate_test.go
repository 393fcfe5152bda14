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

// R10 and R11: what a route overrides holds on that route, and what it does
// not falls back to its own defaults.
func TestR10_R11_PerRoute(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) { time.Sleep(5 * time.Second) })
		slow, quick := s.proxy("10.1.0.1:80"), s.proxy("10.1.0.1:80")
		quick.HeaderTimeout = time.Second
		down := s.proxy("10.1.0.7:80", "10.1.0.8:80", "10.1.0.9:80", "10.1.0.10:80")
		down.Retry = Retry{Tries: 4}
		return NewRouter(
			Route{Match: Path("/quick"), Handler: quick},
			Route{Match: Path("/down"), Handler: HandlerFunc(func(x *Exchange) {
				Serve(down, x)
				require.Equal(s, 4, x.Record.Tries)
			})},
			Route{Handler: slow},
		)
	}, func(s *site) {
		start := time.Now()
		require.Equal(s, 504, s.get("/quick").StatusCode)
		require.InDelta(s, 1, time.Since(start).Seconds(), 0.5, "deadlines are coarse")
		require.Equal(s, 200, s.get("/").StatusCode)
		require.GreaterOrEqual(s, s.get("/down").StatusCode, 500)
		time.Sleep(10 * time.Second)
	})
}
