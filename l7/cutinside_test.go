// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/l7test"
	"github.com/penstock-lb/penstock/ratelimit"
)

// TestCutInsideIsTold: what ends an exchange inside middleware of net/http is a panic with
// http.ErrAbortHandler for that. The record says why it ended, as without the middleware,
// and a CircuitBreaker around counts it.
func TestCutInsideIsTold(t *testing.T) {
	const breaks, volume = "/breaks", 4
	ways := map[string]func(next http.Handler) http.Handler{
		"none": func(next http.Handler) http.Handler { return next },
		"two": func(next http.Handler) http.Handler {
			return foreigners["wrapped writer"](foreigners["wrapped writer"](next))
		},
		"Wrap": func(next http.Handler) http.Handler { return &Wrap{With: foreigners["wrapped writer"], Next: next} },
	}
	for name, way := range foreigners {
		ways[name] = way
	}
	delete(ways, "goroutine") // where nothing would recover the panic
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			var kept latest
			var breaker *ratelimit.Breaker
			onBoth(t, func(s *site) http.Handler {
				ln, err := s.net.Listen("tcp", "10.1.0.1:80")
				require.NoError(s, err)
				origin := &l7test.Origin{Scripts: []l7test.Script{{l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), l7test.Reset()}}}
				go func() { _ = origin.Serve(ln) }()
				s.Cleanup(func() { _ = origin.Close() })
				breaker = &ratelimit.Breaker{Volume: volume, Ramp: -1}
				router := NewRouter(
					Route{Match: Path(breaks), Handler: s.proxy("10.1.0.1:80")},
					Route{Match: Path("/fault"), Handler: &Fault{Abort: true, Next: &Deny{}}},
					Route{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
				)
				h := &CircuitBreaker{Breaker: breaker, Next: way(router)}
				return HandlerFunc(func(x *Exchange) {
					defer func() { kept.set(x.Record) }()
					Serve(h, x)
				})
			}, func(s *site) {
				ask := func(path string) Record {
					_, err := s.ask(s.from("10.9.9.9"), path, "")
					require.Error(s, err)
					synctest.Wait()
					return kept.get()
				}
				require.Equal(s, endOf(l4.Local, l4.PhaseRequest), ask("/fault").Termination)
				require.NoError(s, kept.get().Err)
				if r := ask("/abort"); s.byByte { // else the host's server learns of it after the record was kept
					require.Equal(s, l4.Internal, r.Termination.Cause)
				}
				for range volume {
					require.Equal(s, ratelimit.BreakerClosed, breaker.State())
					r := ask(breaks)
					require.Equal(s, endOf(l4.ServerAborted, l4.PhaseData), r.Termination)
					require.ErrorContains(s, r.Err, "connection reset by peer")
					require.NotEmpty(s, r.Server)
				}
				require.Equal(s, ratelimit.BreakerOpen, breaker.State())
				time.Sleep(time.Second) // net/http lingers with a connection that it closes
			})
		})
	}
}
