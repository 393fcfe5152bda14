// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestSeedRepeatsEveryChoice runs everything of this package that is left to chance three
// times: two runs with one seed are the same, the third, with another one, is not.
func TestSeedRepeatsEveryChoice(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, seed uint64) string{
		"request id":  seededIDs,
		"split":       seededArms,
		"connections": seededAges,
		"mirror":      seededCopies,
		"retry":       func(t *testing.T, seed uint64) string { return seededWaits(t, seed, false) },
		"transport":   func(t *testing.T, seed uint64) string { return seededWaits(t, seed, true) },
	} {
		t.Run(name, func(t *testing.T) {
			first := run(t, 7)
			require.Equal(t, first, run(t, 7))
			require.NotEqual(t, first, run(t, 8))
			require.NotEqual(t, run(t, 0), run(t, 0), "by default it is at random")
		})
	}
}

func seededIDs(_ *testing.T, seed uint64) string {
	h := &RequestID{Seed: seed}
	return h.random() + h.random()
}

func seededArms(_ *testing.T, seed uint64) string {
	s := NewSplit(Arm{Name: "a", Weight: 1, Handler: http.NotFoundHandler()}, Arm{Name: "b", Weight: 1, Handler: http.NotFoundHandler()})
	s.Seed = seed
	var b strings.Builder
	for range 64 {
		b.WriteString(s.draw(nil).Name)
	}
	return b.String()
}

func seededAges(t *testing.T, seed uint64) (ages string) {
	synctest.Test(t, func(*testing.T) {
		h := &upHost{up: &Upstream{MaxAge: time.Hour, Seed: seed}}
		for range 4 {
			age := time.Until(h.expiry())
			require.Greater(t, age, 53*time.Minute)
			require.LessOrEqual(t, age, time.Hour)
			ages += age.String() + " "
		}
	})
	return ages
}

func seededCopies(t *testing.T, seed uint64) string {
	var mu sync.Mutex
	var copied, all []string
	var m *Mirror
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		m = &Mirror{Share: 0.5, Seed: seed, MaxInFlight: -1, To: HandlerFunc(func(x *Exchange) {
			mu.Lock()
			copied = append(copied, x.Path)
			mu.Unlock()
			x.Respond(204, nil, "")
		})}
		p := s.proxy("10.1.0.1:80")
		p.Mirror = m
		return p
	}, func(s *site) {
		copied = nil
		for i := range 64 {
			s.get(fmt.Sprint("/", i))
			synctest.Wait()
			m.Wait()
		}
		all = append(all, strings.Join(copied, ""))
	})
	if seed != 0 {
		require.Equal(t, all[0], all[1], "on both fronts")
	}
	return all[0]
}

// seededWaits measures the time that a request takes which is tried three times.
func seededWaits(t *testing.T, seed uint64, library bool) (waits string) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{}
		require.NoError(s, pool.Set(balance.Endpoint{Addr: "10.1.0.1:80"}))
		p := s.proxyTo(pool)
		p.Logger = slog.New(slog.DiscardHandler)
		p.Seed, p.Retry = seed, Retry{Tries: 3, Backoff: time.Hour, MaxBackoff: time.Hour}
		if library {
			tr := &Transport{Pool: pool, Upstream: p.Upstream, Retry: p.Retry, Seed: seed}
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				out, err := http.NewRequestWithContext(r.Context(), "GET", "http://a.example/", nil)
				if err == nil {
					_, err = tr.RoundTrip(out)
				}
				http.Error(w, fmt.Sprint(err), http.StatusBadGateway)
			})
		}
		return p
	}, func(s *site) {
		began := time.Now()
		require.Equal(s, 502, s.get("/").StatusCode) // nobody listens
		waits += time.Since(began).String() + " "
	})
	return waits
}
