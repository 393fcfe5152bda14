// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

func TestFault(t *testing.T) {
	var active atomic.Bool
	var kept latest
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		to := s.proxy("10.1.0.1:80")
		active.Store(true)
		router := NewRouter(
			Route{Match: Path("/slow"), Handler: &Fault{Active: active.Load, Delay: 2 * time.Second, MaxDelayed: 1, Next: to}},
			Route{Match: Path("/slow-error"), Handler: &Fault{Active: active.Load, Delay: 2 * time.Second, Status: 503, Next: to}},
			Route{Match: Path("/gone"), Handler: &Fault{Active: active.Load, Abort: true, Next: to}},
			Route{Match: Path("/some"), Handler: &Fault{Active: active.Load, Share: 0.25, Seed: 7, Status: 500, Next: to}},
			Route{Handler: &Fault{Active: active.Load, Match: Header{Name: "X-A", Value: "break"}, Status: 418, Next: to}},
		)
		return HandlerFunc(func(x *Exchange) {
			Serve(router, x)
			kept.set(x.Record)
		})
	}, func(s *site) {
		t := s.T
		timed := func(path string) (int, time.Duration) {
			start := time.Now()
			a := s.get(path)
			return a.StatusCode, time.Since(start)
		}
		status, took := timed("/slow")
		require.Equal(t, 200, status)
		require.Equal(t, 2*time.Second, took)
		require.Equal(t, "Fault: delayed", kept.get().Decision)
		status, took = timed("/slow-error")
		require.Equal(t, 503, status)
		require.Equal(t, 2*time.Second, took)
		require.Equal(t, "Fault: delayed; Fault: answered", kept.get().Decision)
		require.Equal(t, endOf(l4.Local, l4.PhaseRequest), kept.get().Termination)
		require.Zero(t, kept.get().Tries)

		_, err := s.ask(s.from("10.9.9.8"), "/gone", "body")
		require.Error(t, err)
		require.Equal(t, "Fault: aborted", kept.get().Decision)

		failed := 0
		for range 400 {
			if s.get("/some").StatusCode == 500 {
				failed++
			}
		}
		require.InDelta(t, 100, failed, 30)

		require.Equal(t, 418, s.get("/x", "X-A", "break").StatusCode)
		require.Equal(t, 200, s.get("/x", "X-A", "other").StatusCode)
		require.Empty(t, kept.get().Decision)

		done := make(chan int) // who waits is bounded
		go func() { status, _ := timed("/slow"); done <- status }()
		time.Sleep(time.Second)
		_, took = timed("/slow")
		require.Zero(t, took)
		require.Equal(t, 200, <-done)

		c := s.from("10.9.9.7") // and frees its place when the client leaves
		c.Timeout = time.Second
		_, err = s.ask(c, "/slow", "")
		require.Error(t, err)
		time.Sleep(time.Millisecond)
		_, took = timed("/slow")
		require.Equal(t, 2*time.Second, took)

		active.Store(false)
		for _, path := range []string{"/slow", "/slow-error", "/gone", "/some"} {
			status, took = timed(path)
			require.Equal(t, 200, status)
			require.Zero(t, took)
		}
	})
}
