// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

func TestWebSite(t *testing.T) {
	p, err := newPools(demo())
	require.NoError(t, err)
	site := webSite(p)
	get := func(target, from string) *http.Response {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.RemoteAddr = from + ":1234"
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		return w.Result()
	}
	text := func(r *http.Response) string {
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		return string(b)
	}
	require.Equal(t, 200, get("http://www.example.com/haproxy-alive", "192.0.2.1").StatusCode)
	r := get("http://www.example.com/x", "192.0.2.1")
	require.Regexp(t, `^web[12] /x\n$`, text(r))
	require.Equal(t, "SRV", r.Cookies()[0].Name)
	require.Equal(t, "static1 /a.png\n", text(get("http://www.example.com/a.png", "192.0.2.1")))
	require.Equal(t, 403, get("http://www.example.com/admin", "192.0.2.1").StatusCode)
	require.Equal(t, 200, get("http://www.example.com/admin", "10.1.2.3").StatusCode)
	r = get("http://old.example.com/x?y", "192.0.2.1")
	require.Equal(t, 301, r.StatusCode)
	require.Equal(t, "http://www.example.com/x?y", r.Header.Get("Location"))

	last := 0
	for range 120 {
		last = get("http://www.example.com/a.png", "192.0.2.9").StatusCode
	}
	require.Equal(t, 429, last)
}

func TestDatabase(t *testing.T) {
	p, err := newPools(demo())
	require.NoError(t, err)
	srv := &l4.Server{Handler: database(p)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "primary\n", string(got))
	require.NoError(t, c.Close())
	require.NoError(t, srv.Shutdown(context.Background()))
	require.ErrorIs(t, <-done, l4.ErrServerClosed)
}

// The whole starts and stops.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, run(ctx, "127.0.0.1:0", "127.0.0.1:0", demo()))
}
