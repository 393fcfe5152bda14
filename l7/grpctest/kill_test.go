// SPDX-License-Identifier: Apache-2.0

package grpctest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// TestKillServer is a server, in a process of its own: gRPC, and HTTP beside it. A reply to
// HTTP is one frame: if it came in two, the server could die between them, and what has
// begun to be answered cannot be repeated.
func TestKillServer(t *testing.T) {
	addr := os.Getenv("KILL_ADDR")
	if addr == "" {
		t.Skip("TestKilledServers runs it")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	calls := grpc.NewServer()
	pb.RegisterTestServiceServer(calls, &service{})
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	fmt.Println("ready")
	_ = (&http.Server{Protocols: p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
			return
		}
		w.Header().Set("X-Path", r.URL.Path)
	})}).Serve(ln)
}

// startServer starts one and waits until it listens.
func startServer(t *testing.T, addr string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillServer$", "-test.v")
	cmd.Env = append(os.Environ(), "KILL_ADDR="+addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for br := bufio.NewReader(out); ; {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatalf("the server at %s: %v", addr, err)
		}
		if line == "ready\n" {
			return cmd
		}
	}
}

// Servers are killed under load, one at a time, as a machine that dies kills them.
// No request that may be repeated fails, and no call that was not sent; those that
// were sent are not gRPC's to repeat. PENSTOCK_CHAOS=1m makes it longer.
func TestKilledServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	lasts := 3 * time.Second
	if d, err := time.ParseDuration(os.Getenv("PENSTOCK_CHAOS")); err == nil {
		lasts = d
	}
	pool := &balance.Pool{}
	var addrs []string
	var list []balance.Endpoint
	var servers []*exec.Cmd
	for range 3 {
		ln := listen(t)
		addr := ln.Addr().String()
		ln.Close()
		addrs, list = append(addrs, addr), append(list, balance.Endpoint{Addr: addr})
		servers = append(servers, startServer(t, addr))
	}
	defer func() {
		for _, s := range servers {
			s.Process.Kill()
			s.Wait()
		}
	}()
	if err := pool.Set(list...); err != nil {
		t.Fatal(err)
	}
	up := &l7.Upstream{Protocols: new(http.Protocols)}
	up.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(up.CloseIdle)
	var unsent, sent, repeated atomic.Int64
	srv := &l7.Server{Logger: slog.New(slog.DiscardHandler), OnDone: func(r *l7.Record) {
		if r.Tries > 1 {
			repeated.Add(1)
		}
		if r.Err == nil || r.Termination.Cause == l4.ClientAborted {
			return
		}
		if r.Termination.Phase <= l4.PhaseConnect {
			unsent.Add(1)
			t.Errorf("not sent, and failed: %v, %v", r.Termination, r.Err)
			return
		}
		sent.Add(1)
	}, Handler: &l7.Proxy{Pool: pool, Upstream: up}}
	front := listen(t)
	go srv.Serve(front)
	t.Cleanup(func() { srv.Close() })

	end := time.Now().Add(lasts)
	ctx, cancel := context.WithDeadline(t.Context(), end.Add(90*time.Second))
	defer cancel()
	var wg sync.WaitGroup
	var kills, gets, calls, failedCalls atomic.Int64
	// going is true until the time is up and, on a machine that is busy with other things,
	// until something was shown.
	going := func() bool {
		now := time.Now()
		return now.Before(end) || now.Before(end.Add(time.Minute)) && (kills.Load() < 2 || repeated.Load() == 0)
	}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{}}}
	for i := range 8 {
		wg.Go(func() {
			for n := 0; going(); n++ {
				path := fmt.Sprintf("/%d/%d", i, n)
				gets.Add(1)
				res, err := client.Get("http://" + front.Addr().String() + path)
				if err != nil {
					t.Errorf("GET %s: %v", path, err)
					continue
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if got := res.Header.Get("X-Path"); err != nil || res.StatusCode != 200 || got != path || len(b) > 0 {
					t.Errorf("GET %s: %d %q %q, %v", path, res.StatusCode, got, b, err)
				}
			}
		})
	}
	cc, err := grpc.NewClient(front.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	for range 8 {
		wg.Go(func() {
			for going() {
				calls.Add(1)
				r, err := pb.NewTestServiceClient(cc).UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(1000)})
				if err != nil {
					failedCalls.Add(1)
					if m := status.Convert(err).Message(); strings.Contains(m, "503") {
						t.Errorf("a call that found no server: %v", err)
					}
				} else if len(r.Payload.Body) != 1000 {
					t.Errorf("%d bytes", len(r.Payload.Body))
				}
			}
		})
	}
	for going() {
		time.Sleep(150 * time.Millisecond)
		i := int(kills.Load()) % len(servers)
		servers[i].Process.Kill()
		servers[i].Wait()
		kills.Add(1)
		time.Sleep(100 * time.Millisecond)
		servers[i] = startServer(t, addrs[i])
	}
	wg.Wait()
	t.Logf("%d kills; %d GETs; %d calls, %d of them lost behind their sending; %d repeated", kills.Load(), gets.Load(), calls.Load(), failedCalls.Load(), repeated.Load())
	if kills.Load() < 2 || repeated.Load() == 0 {
		t.Errorf("%d kills, %d repeated: nothing was shown", kills.Load(), repeated.Load())
	}
	if failedCalls.Load() > sent.Load() {
		t.Errorf("%d calls failed, and %d were lost behind their sending", failedCalls.Load(), sent.Load())
	}
}
