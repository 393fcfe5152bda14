// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestObserve(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, out, "127.0.0.1:0", "localhost:0", "") }()
	urls := make(map[string]string)
	for lines := bufio.NewScanner(said); len(urls) < 2 && lines.Scan(); {
		name, url, _ := strings.Cut(lines.Text(), ": ")
		urls[name] = strings.TrimSuffix(url, "/")
	}
	get := func(url string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		req.Header.Set("Accept", "application/openmetrics-text, */*")
		reply, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer reply.Body.Close()
		require.Equal(t, 200, reply.StatusCode, url)
		body, err := io.ReadAll(reply.Body)
		require.NoError(t, err)
		return string(body)
	}
	for range 4 {
		require.Contains(t, get(urls["gateway"]), "is asked within 00-")
	}
	ops := urls["for operators"]
	var traces, metrics string
	require.Eventually(t, func() bool {
		traces, metrics = get(ops+"/traces"), get(ops+"/metrics")
		return strings.Count(traces, "server GET pages") == 4 && strings.Contains(metrics, "trace_id")
	}, time.Minute, 10*time.Millisecond)
	require.Contains(t, traces, `error.type="503"`)
	require.Contains(t, traces, `http.request.resend_count="1"`)
	require.Contains(t, metrics, `penstock_pool_picks_total{pool="web"}`)
	require.Contains(t, get(ops+"/"), "<title>")
	stop()
	require.NoError(t, <-done)
}
