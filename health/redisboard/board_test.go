// SPDX-License-Identifier: Apache-2.0

package redisboard_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/redisboard"
)

func ExampleBoard() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}, ContextTimeoutEnabled: true})
	defer client.Close()
	gateways := &balance.Pool{Name: "gateways"} // which follows a source
	probe := &health.Divided{
		Of:    health.HTTP{Path: "/healthz"},
		Share: &balance.Share{Of: gateways, Self: "gw-1"},
		Board: &redisboard.Board{Client: client, Name: "web"},
	}
	fmt.Println(probe.Check())
	// Output: <nil>
}

// start starts a redis-server, or skips the test if there is none.
func start(t *testing.T) (client *redis.Client, stop func()) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server here")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	require.NoError(t, cmd.Start())
	var once sync.Once
	stop = func() { once.Do(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) }
	t.Cleanup(stop)
	client = redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = client.Close() })
	require.Eventually(t, func() bool { return client.Ping(context.Background()).Err() == nil }, time.Minute, 10*time.Millisecond)
	return client, stop
}

func TestBoard(t *testing.T) {
	client, _ := start(t)
	b := &redisboard.Board{Client: client, Name: "web"}
	ctx := t.Context()
	all, err := b.All(ctx, time.Second)
	require.NoError(t, err)
	require.Empty(t, all)
	want := map[string]health.Told{
		"a":     {ID: 1<<63 + 1, By: "gw-1"},
		"b c\n": {ID: 2, Code: health.CodeRefused, Text: "connect: \"refused\"", By: "gw-2"},
	}
	for server, told := range want {
		require.NoError(t, b.Tell(ctx, server, told))
	}
	all, err = b.All(ctx, time.Minute)
	require.NoError(t, err)
	require.Equal(t, want, all)
	time.Sleep(20 * time.Millisecond)
	all, err = b.All(ctx, 10*time.Millisecond)
	require.NoError(t, err)
	require.Empty(t, all)
	require.Zero(t, client.Exists(ctx, "penstock:board:web").Val(), "what is old is gone")

	var wrong *penstock.ConfigError
	require.ErrorAs(t, (&redisboard.Board{Client: client}).Tell(ctx, "a", health.Told{}), &wrong)
	require.Equal(t, "Board.Name", wrong.Field)
}

// TestBoardAfterAStepBack: what was told before the clock of Redis stepped back by an hour is not
// fresh for an hour, and what is told now is.
func TestBoardAfterAStepBack(t *testing.T) {
	client, _ := start(t)
	b := &redisboard.Board{Client: client, Name: "web"}
	ctx := t.Context()
	now, err := client.Time(ctx).Result()
	require.NoError(t, err)
	for _, server := range []string{"a", "b"} {
		require.NoError(t, client.HSet(ctx, "penstock:board:web", server, fmt.Sprintf("%d {}", now.Add(time.Hour).UnixMilli())).Err())
	}
	require.NoError(t, b.Tell(ctx, "b", health.Told{ID: 1}))
	all, err := b.All(ctx, time.Minute)
	require.NoError(t, err)
	require.Equal(t, map[string]health.Told{"b": {ID: 1}}, all)
}

// TestFleet has five gateways and twenty servers, each probed by two of them. All know which
// server is ill, and go on when Redis is killed.
func TestFleet(t *testing.T) {
	client, kill := start(t)
	gateways := &balance.Pool{}
	var eps, servers []balance.Endpoint
	for i := range 5 {
		eps = append(eps, balance.Endpoint{Name: fmt.Sprint("gw", i), Addr: "in.memory:1"})
	}
	require.NoError(t, gateways.Set(eps...))
	for i := range 20 {
		servers = append(servers, balance.Endpoint{Name: fmt.Sprint("s", i), Addr: "in.memory:1"})
	}
	var probes, ill atomic.Int64
	ill.Store(-1)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	var pools []*balance.Pool
	quiet := slog.New(slog.DiscardHandler)
	for _, gw := range eps {
		pool := &balance.Pool{}
		require.NoError(t, pool.Set(servers...))
		pools = append(pools, pool)
		c := &health.Checker{Pools: []*balance.Pool{pool}, Interval: time.Second, Jitter: 0.1, Logger: quiet, Probe: &health.Divided{
			Of: health.Func(func(_ context.Context, e balance.Endpoint) error {
				probes.Add(1)
				if e.Name == fmt.Sprint("s", ill.Load()) {
					return &health.Error{Code: health.CodeStatus, Text: "ill"}
				}
				return nil
			}),
			Share: &balance.Share{Of: gateways, Self: gw.Name}, Logger: quiet,
			Board: &redisboard.Board{Client: client, Name: "web"},
		}}
		run.Go(func() { _ = c.Run(ctx) })
	}
	found := func(name string, s balance.State) {
		t.Helper()
		require.Eventually(t, func() bool {
			for _, p := range pools {
				if p.Server(name).State() != s {
					return false
				}
			}
			return true
		}, time.Minute, 20*time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	for try := 1; ; try++ { // a Redis that stalls is away, and then each probes for itself
		before, begin := probes.Load(), time.Now()
		time.Sleep(4 * time.Second)
		each := float64(probes.Load()-before) / 20 / time.Since(begin).Seconds()
		t.Logf("each server is probed %.2f times a second; without a board it is 5", each)
		if each < 3.8 {
			break
		}
		require.Less(t, try, 10)
	}
	ill.Store(3)
	found("s3", balance.StateDown)
	kill()
	ill.Store(4)
	found("s3", balance.StateUp)
	found("s4", balance.StateDown)
	cancel()
	run.Wait()
}
