// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// untilGone answers with a head, which may change the protocol, and goes on until the
// client has gone.
func untilGone(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// A stream is good for a server on trial as soon as its head has come.
func TestTrialEndsWithTheHeadOfAStream(t *testing.T) {
	for _, tt := range []struct {
		name, upgrade  string
		local, library bool
	}{
		{name: "stream"},
		{name: "upgrade", upgrade: "x"},
		{name: "in-process member", local: true},
		{name: "transport", library: true},
		{name: "transport, in-process member", local: true, library: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pool *balance.Pool
			var up *Upstream
			onBoth(t, func(s *site) http.Handler {
				pool = &balance.Pool{Queue: balance.Queue{Size: -1}}
				e := balance.Endpoint{Addr: "10.0.0.2:80"}
				if tt.local {
					e.Value = http.HandlerFunc(untilGone)
				}
				require.NoError(s, pool.Set(e))
				p := s.proxyTo(pool)
				up = p.Upstream
				return p
			}, func(s *site) {
				s.origin("10.0.0.2:80", untilGone)
				server := pool.Server("10.0.0.2:80")
				server.SetTrial(true)
				client := s.client
				if tt.library {
					client = &http.Client{Transport: &Transport{Pool: pool, Upstream: up}}
				}
				req, err := http.NewRequestWithContext(s.Context(), "GET", "http://10.0.0.1/", nil)
				require.NoError(s, err)
				if tt.upgrade != "" && s.http2 && !tt.library {
					s.Skip("upgrades are of HTTP/1")
				}
				if tt.upgrade != "" {
					req.Header.Set("Connection", "Upgrade")
					req.Header.Set("Upgrade", tt.upgrade)
				}
				resp, err := client.Do(req)
				require.NoError(s, err)
				require.Equal(s, 1, server.InFlight(), "the stream goes on")
				l, err := pool.Acquire(s.Context(), balance.Request{})
				require.NoError(s, err, "and the server takes more")
				l.Done(balance.Outcome{})
				_ = resp.Body.Close()
			})
		})
	}
}
