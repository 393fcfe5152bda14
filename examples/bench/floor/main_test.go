// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func start(t *testing.T, f *floor) (url string) {
	pair := httptest.NewTLSServer(nil)
	pair.Close()
	f.cfg = &tls.Config{Certificates: pair.TLS.Certificates, NextProtos: []string{"h2"}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go f.serve(ln)
	return "https://" + ln.Addr().String()
}

func TestFloor(t *testing.T) {
	for _, size := range []int{0, 1, 100, maxFrame, maxFrame + 1, 1 << 20} {
		body := strings.Repeat("b", size)
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			io.WriteString(w, body)
		}))
		defer origin.Close()
		to := origin.Listener.Addr().String()
		url := start(t, &floor{to: to, size: 4096, yield: true, request: []byte("GET / HTTP/1.1\r\nHost: " + to + "\r\n\r\n")})
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		defer client.CloseIdleConnections()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for range 5 {
					res, err := client.Get(url)
					if !assert.NoError(t, err) {
						return
					}
					b, err := io.ReadAll(res.Body)
					res.Body.Close()
					assert.NoError(t, err)
					assert.Equal(t, 2, res.ProtoMajor)
					assert.True(t, body == string(b), len(b))
				}
			})
		}
		all.Wait()
	}
}

func TestIdle(t *testing.T) {
	f := &floor{idle: true}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	res, err := client.Get(start(t, f))
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Len(t, f.kept, 1)
}
