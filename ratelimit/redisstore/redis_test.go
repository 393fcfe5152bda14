// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A server is a redis-server of the machine, on a free port.
type server struct {
	t    *testing.T
	addr string
	args []string
	cmd  *exec.Cmd

	first   []string      // before the other arguments
	options redis.Options // of a client that asks whether it is up
}

// start starts a redis-server, or skips the test if there is none.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, addr: free(t), args: args}
	s.up()
	t.Cleanup(s.down)
	return s
}

// free returns a loopback address whose port is free, and whose port + 10000,
// the cluster bus of Redis, exists.
func free(t *testing.T) string {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := ln.Addr().(*net.TCPAddr)
		require.NoError(t, ln.Close())
		if addr.Port < 55_000 {
			return addr.String()
		}
	}
}

func (s *server) up() {
	s.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Skip("no redis-server here")
	}
	_, port, _ := net.SplitHostPort(s.addr)
	args := append(slices.Clone(s.first), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", s.t.TempDir())
	s.cmd = exec.Command(path, append(args, s.args...)...)
	require.NoError(s.t, s.cmd.Start())
	s.options.Addr, s.options.MaxRetries = s.addr, -1
	c := redis.NewClient(&s.options)
	defer c.Close()
	require.Eventually(s.t, func() bool { return c.Ping(context.Background()).Err() == nil }, time.Minute, 10*time.Millisecond)
}

func (s *server) down() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// cluster starts three nodes that share the slots.
func cluster(t *testing.T) (addrs []string) {
	t.Helper()
	for range 3 {
		s := start(t, "--cluster-enabled", "yes")
		addrs = append(addrs, s.addr)
	}
	ctx := context.Background()
	const slots = 16384
	for i, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		defer c.Close()
		require.NoError(t, c.ClusterAddSlotsRange(ctx, i*slots/3, (i+1)*slots/3-1).Err())
		require.NoError(t, c.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)).Err())
		if i > 0 {
			host, port, _ := net.SplitHostPort(addrs[0])
			require.NoError(t, c.ClusterMeet(ctx, host, port).Err())
		}
	}
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		defer c.Close()
		require.Eventually(t, func() bool {
			info, err := c.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		}, time.Minute, 50*time.Millisecond, addr)
	}
	return addrs
}

func key(t *testing.T, i int) string { return fmt.Sprintf("%s-%d", t.Name(), i) }
