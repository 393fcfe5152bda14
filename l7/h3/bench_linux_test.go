// SPDX-License-Identifier: Apache-2.0

package h3_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/h3"
)

const benchEnv = "PENSTOCK_BENCH_H3" // what TestServeBenchmark serves, and the address of the origin

var benchSizes = map[string]string{"/small": strings.Repeat("x", 128), "/64k": strings.Repeat("x", 64<<10)}

// BenchmarkFront compares the Front with quic-go's own server, by the processor time that
// the server's process takes for a request, kernel included: cpu-us/op. Each server
// answers by itself ("reply"), and is a proxy to a server of HTTP/1 ("proxy"), where
// quic-go's has net/http's ReverseProxy. Clients are quic-go's: 8 connections with 4 requests
// at once.
//
// In four runs on two busy cores (2026-11), the Front took this share of quic-go's time:
//
//	reply/small  0.91 - 1.21
//	reply/64k    0.76 - 1.06
//	proxy/small  0.56 - 0.64
//	proxy/64k    1.03 - 1.44
//
// It must not be run with real-time priority (chrt -f): the threads of the two processes
// then spin, and keep each other from running.
func BenchmarkFront(b *testing.B) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, benchSizes[r.URL.Path])
	}))
	defer origin.Close()
	for _, path := range []string{"/small", "/64k"} {
		for _, what := range []string{"reply", "proxy"} {
			for _, server := range []string{"quic-go", "Front"} {
				b.Run(what+path+"/"+server, func(b *testing.B) {
					benchmark(b, server+" "+what+" "+strings.TrimPrefix(origin.URL, "http://"), path)
				})
			}
		}
	}
}

func benchmark(b *testing.B, serves, path string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestServeBenchmark$")
	cmd.Env = append(os.Environ(), benchEnv+"="+serves)
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	defer func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	url := "https://" + strings.TrimSpace(addr)

	clients := make([]*http3.Transport, 8)
	get := func(c *http3.Transport, path string) string {
		res, err := (&http.Client{Transport: c}).Get(url + path)
		if err != nil {
			b.Error(err)
			return ""
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			b.Error(err)
		}
		return string(body)
	}
	for i := range clients {
		clients[i] = &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}
		defer clients[i].Close()
		for range 20 {
			require.Equal(b, benchSizes[path], get(clients[i], path))
		}
	}
	used := func() float64 {
		us, err := strconv.ParseFloat(get(clients[0], "/cpu"), 64)
		require.NoError(b, err)
		return us
	}
	before := used()
	b.ResetTimer()
	var next atomic.Int64
	var all sync.WaitGroup
	for i := range 4 * len(clients) {
		all.Go(func() {
			for next.Add(1) <= int64(b.N) {
				get(clients[i%len(clients)], path)
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric((used()-before)/float64(b.N), "cpu-us/op")
}

// TestServeBenchmark is the server's process.
func TestServeBenchmark(t *testing.T) {
	serves := os.Getenv(benchEnv)
	if serves == "" {
		t.Skip("it is for BenchmarkFront")
	}
	words := strings.Fields(serves)
	server, what, origin := words[0], words[1], words[2]
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS() // for its certificate
	defer cert.Close()
	config := &tls.Config{Certificates: cert.TLS.Certificates}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var serve func() error
	if server == "Front" {
		pool := &balance.Pool{}
		require.NoError(t, pool.Set(balance.Endpoint{Addr: origin}))
		proxy := &l7.Proxy{Pool: pool}
		gateway := &l7.Server{TLSConfig: config, Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			switch {
			case x.Path == "/cpu":
				x.Respond(200, nil, cpu())
			case what == "proxy":
				proxy.ServeExchange(x)
			default:
				x.Respond(200, nil, benchSizes[x.Path])
			}
		})}
		front := &h3.Front{Server: gateway}
		defer gateway.Close()
		serve = func() error { return front.ServeTLS(udp, "", "") }
	} else {
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: origin})
		proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 100}
		gateway := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(config), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/cpu":
				_, _ = io.WriteString(w, cpu())
			case what == "proxy":
				proxy.ServeHTTP(w, r)
			default:
				_, _ = io.WriteString(w, benchSizes[r.URL.Path])
			}
		})}
		defer gateway.Close()
		serve = func() error { return gateway.Serve(udp) }
	}
	ctx, end := context.WithCancel(t.Context())
	go func() { defer end(); _ = serve() }()
	fmt.Println(udp.LocalAddr())
	go func() { defer end(); _, _ = io.Copy(io.Discard, os.Stdin) }()
	<-ctx.Done()
}

// cpu returns the processor time of this process, in microseconds.
func cpu() string {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return strconv.FormatInt((u.Utime.Nano()+u.Stime.Nano())/1000, 10)
}
