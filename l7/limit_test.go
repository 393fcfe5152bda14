// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/ratelimit"
)

func TestLimit(t *testing.T) {
	var over []netip.Addr
	onBoth(t, func(s *site) http.Handler {
		over = nil
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(2)}},
			Policy:  "client", Window: time.Second,
			OnOver: func(_ *Exchange, a netip.Addr, _ ratelimit.Decision) { over = append(over, a) },
			Next:   text,
		}
	}, func(s *site) {
		t := s.T
		a := s.get("/")
		require.Equal(t, `"client";r=1;t=1`, a.Header.Get("RateLimit"))
		require.Equal(t, `"client";q=2;w=1`, a.Header.Get("RateLimit-Policy"))
		require.Equal(t, 200, s.get("/").StatusCode)
		a = s.get("/")
		require.Equal(t, 429, a.StatusCode)
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		require.Equal(t, `"client";r=0;t=1`, a.Header.Get("RateLimit"))
		require.Equal(t, "429 Too Many Requests\n", a.body)
		require.Equal(t, []netip.Addr{netip.MustParseAddr("10.9.9.9")}, over)

		other, err := s.ask(s.from("10.9.9.8"), "/", "")
		require.NoError(t, err)
		require.Equal(t, 200, other.StatusCode)
		time.Sleep(time.Second)
		require.Equal(t, 200, s.get("/").StatusCode)
	})
}

func TestLimitWaits(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1), MaxWait: time.Second}},
			Key:     ByHeader("X-Key"),
			Next:    text,
		}
	}, func(s *site) {
		t := s.T
		start := time.Now()
		s.get("/", "X-Key", "a")
		s.get("/", "X-Key", "a")
		require.Equal(t, time.Second, time.Since(start))
		for range 5 {
			s.get("/") // no key, no limit
		}
		require.Equal(t, time.Second, time.Since(start))
	})
}

// What failed before it reached a server is not charged.
func TestLimitRefunds(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(2)}},
			Next: NewRouter(
				Route{Match: Path("/deny"), Handler: &Deny{}},
				Route{Handler: s.proxy()}, // nobody there
			),
		}
	}, func(s *site) {
		t := s.T
		for range 5 {
			require.Equal(t, 503, s.get("/").StatusCode)
		}
		require.Equal(t, 403, s.get("/deny").StatusCode)
		require.Equal(t, 403, s.get("/deny").StatusCode)
		require.Equal(t, 429, s.get("/deny").StatusCode, "a rule's no is charged")
	})
}

func TestLimitInFlight(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.InFlight{Max: 1}},
			Key:     ByHost,
			Next: HandlerFunc(func(x *Exchange) {
				time.Sleep(time.Second)
				x.Respond(204, nil, "")
			}),
		}
	}, func(s *site) {
		t := s.T
		first := make(chan int)
		go func() {
			a, _ := s.ask(s.from("10.9.9.8"), "/", "")
			first <- a.StatusCode
		}()
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 429, s.get("/").StatusCode)
		require.Equal(t, 204, <-first)
		require.Equal(t, 204, s.get("/").StatusCode)
	})
}
