// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestLoad lets the load generator of bench ask a server that needs 10 ms for a reply,
// and fails one request of ten.
func TestLoad(t *testing.T) {
	for name, load := range map[string]Load{
		"kept":   {Path: "/small", Conns: 4},
		"close":  {Path: "/small", Conns: 4, Close: true},
		"routes": {Routes: 3, Conns: 4, Browser: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := l4test.NewNetwork()
				ln, err := network.Listen("tcp", "10.0.0.1:80")
				require.NoError(t, err)
				var conns, n atomic.Int64
				s := &http.Server{
					ConnState: func(_ net.Conn, state http.ConnState) {
						if state == http.StateNew {
							conns.Add(1)
						}
					},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(10 * time.Millisecond)
						if load.Routes > 0 && (!strings.HasPrefix(r.URL.Path, "/r") || len(r.Header) < 20) {
							t.Errorf("asks for %s with %d fields", r.URL.Path, len(r.Header))
						}
						if n.Add(1)%10 == 0 {
							w.WriteHeader(http.StatusBadGateway)
						}
					}),
				}
				go s.Serve(ln)
				j := Job{Load: load, Addr: "10.0.0.1:80", Seconds: 1, dial: network.DialContext}
				a, err := j.run(t.Context())
				require.NoError(t, err)
				require.NoError(t, s.Shutdown(t.Context()))
				require.InDelta(t, 10, a.P99, 0.1)
				require.InDelta(t, 1, a.Seconds, 0.02)
				require.InDelta(t, 9*a.Failed, a.Done, 10)
				require.Greater(t, a.Done, 100)
				if load.Close {
					require.InDelta(t, n.Load(), conns.Load(), 5)
				} else {
					require.InDelta(t, a.Failed+4, conns.Load(), 5)
				}
			})
		})
	}
}

// TestLoadWaits: if the time is over before the first reply, it goes on until there is one.
func TestLoadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := l4test.NewNetwork()
		ln, err := network.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(5 * time.Second) })}
		go s.Serve(ln)
		j := Job{Load: Load{Path: "/", Conns: 1}, Addr: "10.0.0.1:80", Seconds: 1, dial: network.DialContext}
		a, err := j.run(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Shutdown(t.Context()))
		require.Equal(t, &Answer{Done: 1, Seconds: 5, P99: 5000}, a)
	})
}

// TestParse reads what programs print.
func TestParse(t *testing.T) {
	read := func(file string) string {
		text, err := os.ReadFile("testdata/" + file)
		require.NoError(t, err)
		return string(text)
	}
	a, err := parseWRK(read("wrk.txt"))
	require.NoError(t, err)
	require.Equal(t, &Answer{Done: 58000, Failed: 22, Seconds: 1.1, P99: 2}, a)
	a, err = parseH2Load(read("h2load.txt"), "testdata/h2load.log")
	require.NoError(t, err)
	require.Equal(t, &Answer{Done: 61239, Failed: 1, Seconds: 1, P99: 3}, a)
	a, err = parseAnswer(`{"Done":3,"Failed":1,"Seconds":0.5,"P99":2}`)
	require.NoError(t, err)
	require.Equal(t, &Answer{Done: 3, Failed: 1, Seconds: 0.5, P99: 2}, a)
	for _, wrong := range []string{"", "unable to connect to 127.0.0.1:8080 Connection refused\n", "null x"} {
		_, err := parseWRK(wrong)
		require.Error(t, err)
		_, err = parseH2Load(wrong, "testdata/h2load.log")
		require.Error(t, err)
		_, err = parseAnswer(wrong)
		require.Error(t, err)
	}
	_, err = parseH2Load(read("h2load.txt"), "testdata/none")
	require.Error(t, err)
}

func TestP99(t *testing.T) {
	var took []time.Duration
	require.Zero(t, p99(took))
	for i := range 200 {
		took = append(took, time.Duration(200-i)*time.Millisecond)
	}
	require.InDelta(t, 198, p99(took), 1e-9)
	require.InDelta(t, 7, p99([]time.Duration{7 * time.Millisecond}), 1e-9)
}

func TestToolArguments(t *testing.T) {
	tools := &Tools{WRK: "wrk", H2Load: "h2load", Cores: []int{0, 1}, Dir: "."}
	j := Job{Load: Load{Path: "/small", Conns: 64, Close: true}, Addr: "127.0.0.1:8443", Seconds: 0.2}
	require.Equal(t, "wrk -t2 -c64 -d1s --timeout 10s --latency -H Connection: close https://127.0.0.1:8443/small", strings.Join(tools.wrk(TLS, j), " "))
	j = Job{Load: Load{Routes: 100, Conns: 1}, Addr: "127.0.0.1:8080", Seconds: 2}
	require.Equal(t, "wrk -t1 -c1 -d2s --timeout 10s --latency -s wrk.lua http://127.0.0.1:8080/r0/ -- 100", strings.Join(tools.wrk(HTTP, j), " "))
	j = Job{Load: Load{Path: "/64k", HTTP2: true, Conns: 8, Streams: 4, Browser: true}, Addr: "127.0.0.1:8443", Seconds: 3}
	args := tools.h2load(j, "log")
	require.Equal(t, "h2load -t2 -c8 -m4 -D3 --log-file=log -H User-Agent: Mozilla", strings.Join(args, " ")[:60])
	require.Len(t, args, 6+2*len(browser)+1)
}

func TestStreamOf(t *testing.T) {
	yes, no := func(string) bool { return true }, func(string) bool { return false }
	for _, c := range []struct {
		text   string
		exists func(string) bool
		ok     bool
		load   string
	}{
		{"configure arguments: --with-stream --with-threads", no, true, ""},
		{"configure arguments: --modules-path=/m --with-stream=dynamic --with-x", yes, true, "/m/ngx_stream_module.so"},
		{"configure arguments: --modules-path=/m --with-stream=dynamic --with-x", no, false, ""},
		{"configure arguments: --with-stream_ssl_module", yes, false, ""},
		{"", yes, false, ""},
	} {
		ok, load := streamOf(c.text, c.exists)
		require.Equal(t, c.ok, ok, c.text)
		require.Equal(t, c.load, load, c.text)
	}
}
