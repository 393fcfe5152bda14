// SPDX-License-Identifier: Apache-2.0

//go:build linux

package health_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// TestOtherProcess is not a test: it is the process of the servers that
// BenchmarkThousandServers checks, so that their work is not counted.
func TestOtherProcess(t *testing.T) {
	if os.Getenv("PENSTOCK_OTHER_PROCESS") == "" {
		t.Skip("started by BenchmarkThousandServers")
	}
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	fmt.Println("PORT", ln.Addr().(*net.TCPAddr).Port)
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the benchmark is gone
		s.Close()
	}()
	s.Serve(ln)
}

// BenchmarkThousandServers runs a checker over 1000 servers at an interval of
// 2 s and reports the share of one core that this process uses, user and system time
// together, and the most goroutines seen. Beside it the same connections are made
// without a checker, 25 at once in a goroutine each, and nothing else.
func BenchmarkThousandServers(b *testing.B) {
	other := exec.Command(os.Args[0], "-test.run=^TestOtherProcess$", "-test.v")
	other.Env = append(os.Environ(), "PENSTOCK_OTHER_PROCESS=1")
	stdin, err := other.StdinPipe()
	require.NoError(b, err)
	stdout, err := other.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, other.Start())
	defer other.Wait()
	defer stdin.Close()
	port := ""
	for lines := bufio.NewScanner(stdout); port == "" && lines.Scan(); {
		port, _ = strings.CutPrefix(lines.Text(), "PORT ")
		if port == lines.Text() {
			port = ""
		}
	}
	go io.Copy(io.Discard, stdout)

	var set []balance.Endpoint
	for i := range 1000 {
		set = append(set, balance.Endpoint{Addr: fmt.Sprintf("127.1.%d.%d:%s", i/250, 1+i%250, port)})
	}
	p := &balance.Pool{}
	require.NoError(b, p.Set(set...))
	b.Run("bare dials", func(b *testing.B) {
		span, used := time.Duration(0), time.Duration(0)
		for b.Loop() {
			begin, before := time.Now(), cpu()
			bareDials(set, 2*time.Second)
			span += time.Since(begin)
			used += cpu() - before
		}
		b.ReportMetric(100*used.Seconds()/span.Seconds(), "%core")
		b.ReportMetric(used.Seconds()*1e6/(span.Seconds()*500), "us/probe")
		b.ReportMetric(0, "ns/op")
	})
	for name, probe := range map[string]health.Probe{"nothing": health.All{}, "TCP": health.TCP{}, "HTTP": health.HTTP{}} {
		b.Run(name, func(b *testing.B) {
			probes := 0
			c := &health.Checker{Pools: []*balance.Pool{p}, Probe: probe, Logger: quiet, OnResult: func(r health.Result) {
				if r.Err != nil {
					b.Error(r.Err)
				}
				probes++
			}}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error)
			go func() { done <- c.Run(ctx) }()
			time.Sleep(2 * time.Second) // the first round
			most, span, used := 0, time.Duration(0), time.Duration(0)
			for b.Loop() {
				begin, before := time.Now(), cpu()
				for time.Since(begin) < 2*time.Second {
					most = max(most, runtime.NumGoroutine())
					time.Sleep(100 * time.Millisecond)
				}
				span += time.Since(begin)
				used += cpu() - before
			}
			cancel()
			<-done
			b.ReportMetric(100*used.Seconds()/span.Seconds(), "%core")
			b.ReportMetric(used.Seconds()*1e6/(span.Seconds()*500), "us/probe")
			b.ReportMetric(float64(most), "goroutines")
			b.ReportMetric(0, "ns/op")
			if probes < 900 {
				b.Errorf("%d probes", probes)
			}
		})
	}
}

// bareDials connects to the servers as often as a checker does, until span has passed.
func bareDials(set []balance.Endpoint, span time.Duration) {
	d := net.Dialer{KeepAlive: -1}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; i < int(span/(50*time.Millisecond)); i++ {
		<-tick.C
		var wg sync.WaitGroup
		for j := range 25 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				if c, err := d.DialContext(ctx, "tcp", set[(25*i+j)%len(set)].Addr); err == nil {
					c.Close()
				}
			})
		}
		wg.Wait()
	}
}

// cpu returns the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
