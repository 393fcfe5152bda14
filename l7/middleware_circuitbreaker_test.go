// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/ratelimit"
)

// TestCircuitBreaker has the only server of a pool fail and come back.
func TestCircuitBreaker(t *testing.T) {
	var status, asked atomic.Int64
	var kept latest
	var breaker *ratelimit.Breaker
	onBoth(t, func(s *site) http.Handler {
		status.Store(200)
		asked.Store(0)
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			switch r.URL.Path {
			case "/stream":
				_, _ = w.Write([]byte("begun"))
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			case "/abort":
				panic(http.ErrAbortHandler)
			default:
				w.WriteHeader(int(status.Load()))
			}
		})
		breaker = &ratelimit.Breaker{Volume: 4, Ramp: -1}
		h := &CircuitBreaker{Breaker: breaker, Next: s.proxy("10.1.0.1:80")}
		return HandlerFunc(func(x *Exchange) {
			Serve(h, x)
			kept.set(x.Record)
		})
	}, func(s *site) {
		for _, harmless := range []int64{200, 404, 501, 505, 499} {
			status.Store(harmless)
			for range 8 {
				require.EqualValues(s, harmless, heard(s, "/").StatusCode)
			}
		}
		time.Sleep(11 * time.Second)
		status.Store(503)
		for range 3 {
			require.Equal(s, 503, heard(s, "/").StatusCode)
		}
		require.Equal(s, 502, heard(s, "/abort").StatusCode) // a broken connection counts as well
		require.Equal(s, ratelimit.BreakerOpen, breaker.State())
		before := asked.Load()
		for range 10 {
			a := heard(s, "/")
			require.Equal(s, 503, a.StatusCode)
			require.Equal(s, "5", a.Header.Get("Retry-After"))
		}
		require.Equal(s, before, asked.Load())
		require.Equal(s, endOf(l4.ServerDown, l4.PhaseQueue), kept.get().Termination)
		require.Equal(s, "CircuitBreaker: open", kept.get().Decision)
		require.Zero(s, kept.get().Tries)

		time.Sleep(5 * time.Second)
		heard(s, "/") // the trial
		require.Equal(s, before+1, asked.Load())
		require.Equal(s, ratelimit.BreakerOpen, breaker.State())

		status.Store(200)
		time.Sleep(5 * time.Second)
		c := s.from("10.9.9.7") // a stream that has begun is a success
		c.Timeout = time.Minute
		go func() { _, _ = s.ask(c, "/stream", "") }()
		time.Sleep(time.Second)
		require.Equal(s, ratelimit.BreakerClosed, breaker.State())
		require.Equal(s, 200, heard(s, "/").StatusCode)
		time.Sleep(time.Minute)
	})
}

// TestCircuitBreakerWhat: what counts as a failure is the host's to say, and neither a
// handler that panics nor a Failed that does leaves a trial behind.
func TestCircuitBreakerWhat(t *testing.T) {
	breaker := &ratelimit.Breaker{Volume: 1, Ramp: -1}
	onBoth(t, func(*site) http.Handler {
		breaker = &ratelimit.Breaker{Volume: 1, Ramp: -1}
		return &CircuitBreaker{
			Breaker: breaker,
			Failed: func(x *Exchange) (failed, counts bool) {
				if x.Path == "/odd" {
					panic("no opinion")
				}
				return x.Record.Status == 429, x.Record.Status != 404
			},
			Refuse: &FixedReply{Status: 420},
			Next: HandlerFunc(func(x *Exchange) {
				switch x.Path {
				case "/panic":
					panic("no reply")
				case "/many":
					x.Respond(429, nil, "")
				case "/none":
					x.Respond(404, nil, "")
				default:
					x.Respond(500, nil, "")
				}
			}),
		}
	}, func(s *site) {
		heard(s, "/none")
		heard(s, "/other")
		panics := func(path string) { // net/http, if it serves, closes the connection
			_, _ = s.ask(s.from("10.9.9.7"), path, "")
			synctest.Wait()
		}
		panics("/panic")
		panics("/odd")
		require.Equal(s, ratelimit.BreakerClosed, breaker.State())
		time.Sleep(11 * time.Second)
		heard(s, "/many")
		require.Equal(s, ratelimit.BreakerOpen, breaker.State())
		a := heard(s, "/other")
		require.Equal(s, 420, a.StatusCode)
		require.Equal(s, "5", a.Header.Get("Retry-After"))
		time.Sleep(5 * time.Second)
		panics("/panic")
		require.Equal(s, ratelimit.BreakerHalfOpen, breaker.State())
		panics("/odd")
		require.Equal(s, ratelimit.BreakerHalfOpen, breaker.State())
		require.Equal(s, 404, heard(s, "/none").StatusCode)
		require.Equal(s, 500, heard(s, "/other").StatusCode)
		require.Equal(s, ratelimit.BreakerClosed, breaker.State())
	})
}

// heard asks, and waits until the breaker has heard of the reply too: the client may have
// it before.
func heard(s *site, path string) answer {
	a := s.get(path)
	synctest.Wait()
	return a
}

// TestGateSheds: a Gate asks a Shedder once for each request.
func TestGateSheds(t *testing.T) {
	var shedder *ratelimit.Shedder
	onBoth(t, func(*site) http.Handler {
		shedder = &ratelimit.Shedder{Least: 0.5, Load: func() (float64, error) { return 1, nil }}
		return &Gate{Places: shedder, Next: &FixedReply{Status: 204}}
	}, func(s *site) {
		served := 0
		for i := range 500 {
			if i == 100 {
				served = 0 // it has settled
			}
			if a := s.get("/"); a.StatusCode == 204 {
				served++
			} else {
				require.Equal(s, 503, a.StatusCode)
				require.Equal(s, "1", a.Header.Get("Retry-After"))
			}
			time.Sleep(10 * time.Millisecond)
		}
		require.InDelta(s, 200, served, 60)
		st := shedder.Stats()
		require.EqualValues(s, 500, st.Taken+st.Refused)
	})
}
