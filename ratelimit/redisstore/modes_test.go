// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/ratelimit"
)

// rights are those of a user that keeps limits.
var rights = []string{"~penstock:*", "-@all", "+evalsha", "+eval", "+get", "+set", "+del", "+time", "+ping"}

// limit returns a limit in Redis, through a client of its own. An hour brings back one.
func limit(t *testing.T, options *redis.UniversalOptions) *ratelimit.Shared[string] {
	client := redis.NewUniversalClient(options)
	t.Cleanup(func() { _ = client.Close() })
	l := &ratelimit.Shared[string]{
		Store: &Store{Client: client}, Law: ratelimit.GCRA{Rate: ratelimit.Rate{Count: 1000, Per: 1000 * time.Hour}}, Timeout: 10 * time.Second, Retry: 100 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
	require.NoError(t, l.Check())
	return l
}

// TestTLSAndUser: over TLS, with a user that may do no more than needed, and one with a wrong password.
func TestTLSAndUser(t *testing.T) {
	options := secured(t)
	l := limit(t, options)
	d := l.Take("k", 3)
	require.False(t, d.Local)
	require.Equal(t, 997, d.Remaining)
	l.Refund("k", d)
	require.Equal(t, 1000, l.Take("k", 0).Remaining)
	l.Law = ratelimit.Window{Rate: ratelimit.PerHour(10)}
	require.False(t, l.Take("w", 3).Local)

	options.Password = "wrong"
	wrong := limit(t, options)
	var said error
	wrong.Failures, wrong.OnOutage = 1, func(err error) { said = err }
	require.True(t, wrong.Take("k", 1).Local)
	require.ErrorContains(t, said, "WRONGPASS")
}

// TestScriptsForgotten: Redis has lost its scripts, as a server that took over has.
func TestScriptsForgotten(t *testing.T) {
	s := start(t)
	l := limit(t, &redis.UniversalOptions{Addrs: []string{s.addr}, ContextTimeoutEnabled: true, MaxRetries: -1})
	c := redis.NewClient(&redis.Options{Addr: s.addr})
	defer c.Close()
	for i := range 3 {
		require.False(t, l.Take("k", 1).Local)
		require.NoError(t, c.ScriptFlush(context.Background()).Err())
		require.Equal(t, 999-i, l.Take("k", 0).Remaining)
		require.NoError(t, c.ScriptFlush(context.Background()).Err())
	}
}

// TestReplicaIsAway: one that must not write decides nothing.
func TestReplicaIsAway(t *testing.T) {
	master := start(t)
	host, port, _ := net.SplitHostPort(master.addr)
	replica := start(t, "--replicaof", host+" "+port)
	l := limit(t, &redis.UniversalOptions{Addrs: []string{replica.addr}, ContextTimeoutEnabled: true, MaxRetries: -1})
	require.True(t, l.Take("k", 1).Local)
	c := redis.NewClient(&redis.Options{Addr: replica.addr})
	defer c.Close()
	require.NoError(t, c.ReplicaOf(context.Background(), "NO", "ONE").Err())
	require.Eventually(t, func() bool { return !l.Take("k", 1).Local }, time.Minute, 10*time.Millisecond, "it has been promoted")
}

// TestSentinelFailover: a master is killed, and what takes over knows what was taken.
func TestSentinelFailover(t *testing.T) {
	master, options := watched(t)
	l := limit(t, options)
	require.Equal(t, 900, l.Take("k", 100).Remaining)
	replicates(t, master.addr)
	master.down()
	begin := time.Now()
	require.Eventually(t, func() bool { return !l.Take("k", 1).Local }, time.Minute, 10*time.Millisecond)
	t.Logf("limits are shared again after %v", time.Since(begin).Round(time.Millisecond))
	remaining := l.Take("k", 0).Remaining
	require.Less(t, remaining, 900)
	require.Greater(t, remaining, 800)

	master.up() // as what the sentinels make of it, a replica
	inARow := 0 // a machine that stalls can make the sentinels choose again
	require.Eventually(t, func() bool {
		inARow++
		if l.Take("k", 0).Local {
			inARow = 0
		}
		return inARow == 200
	}, time.Minute, 10*time.Millisecond)
}

// TestClusterFailover: slots move to another node, and a node is killed, under load.
func TestClusterFailover(t *testing.T) {
	all, options := replicated(t)
	l := limit(t, options)
	ctx := context.Background()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: options.Addrs})
	defer client.Close()
	const keys = 100
	take := func() (local int) {
		for i := range keys {
			if l.Take(key(t, i), 1).Local {
				local++
			}
		}
		return local
	}
	require.Zero(t, take())

	first, err := client.MasterForKey(ctx, "penstock:"+key(t, 0))
	require.NoError(t, err)
	from := first.Options().Addr
	var mu sync.Mutex
	var other string
	require.NoError(t, client.ForEachMaster(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock() // each master by a goroutine
		defer mu.Unlock()
		if c.Options().Addr != from {
			other = c.Options().Addr
		}
		return nil
	}))
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		cli(t, "--cluster", "reshard", from, "--cluster-from", id(t, from), "--cluster-to", id(t, other), "--cluster-slots", "500", "--cluster-yes")
	}()
	for busy := true; busy; {
		require.Zero(t, take(), "a slot that moves is found")
		select {
		case <-moved:
			busy = false
		default:
		}
	}

	replicates(t, from)
	before := l.Take(key(t, 0), 0)
	for _, addr := range options.Addrs { // from now on a node is missed soon
		c := redis.NewClient(&redis.Options{Addr: addr})
		require.NoError(t, c.ConfigSet(ctx, "cluster-node-timeout", "1000").Err())
		require.NoError(t, c.Close())
	}
	all[from].down()
	begin := time.Now()
	require.Eventually(t, func() bool { return take() == 0 }, time.Minute, 10*time.Millisecond)
	t.Logf("limits are shared again after %v", time.Since(begin).Round(time.Millisecond))
	require.Less(t, l.Take(key(t, 0), 0).Remaining, before.Remaining, "it knows what was taken")
}

// id returns what the node at addr is called in its cluster.
func id(t *testing.T, addr string) string {
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	name, err := c.Do(context.Background(), "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	return name
}
