// SPDX-License-Identifier: Apache-2.0

package redisstick

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

func dial(t *testing.T, addrs ...string) redis.UniversalClient {
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// gateway returns a gateway to servers a, b and c that live in this process.
func gateway(t *testing.T, table l7.StickStore) http.Handler {
	pool := &balance.Pool{Policy: balance.RoundRobin{}}
	var list []balance.Endpoint
	for _, name := range []string{"a", "b", "c"} {
		list = append(list, balance.Endpoint{Name: name, Value: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name) })})
	}
	require.NoError(t, pool.Set(list...))
	return &l7.Stick{Key: l7.ByHeader("X-Key"), Table: table, Next: &l7.Proxy{Pool: pool}}
}

// ask returns the name of the server that answers, or the status.
func ask(h http.Handler, key string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Key", key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 {
		return fmt.Sprint(w.Code)
	}
	return w.Body.String()
}

// Two gateways send a key to the same server, on one Redis and on three.
func TestTwoGateways(t *testing.T) {
	for _, kind := range []string{"single", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			var addrs []string
			if kind == "single" {
				addrs = []string{start(t).addr}
			} else {
				addrs = cluster(t)
			}
			one := gateway(t, &Table{Client: dial(t, addrs...), Timeout: 10 * time.Second})
			two := gateway(t, &Table{Client: dial(t, addrs...), Timeout: 10 * time.Second})
			seen := map[string]bool{}
			for i := range 60 {
				first := ask(one, key(t, i))
				seen[first] = true
				require.Equal(t, first, ask(two, key(t, i)))
				require.Equal(t, first, ask(one, key(t, i)))
			}
			require.Len(t, seen, 3, "keys are spread over the servers")
		})
	}
}

func TestExpire(t *testing.T) {
	c := dial(t, start(t).addr)
	ctx := context.Background()
	table := &Table{Client: c, Prefix: "p:", Expire: time.Hour}
	_, ok := table.Lookup("k")
	require.False(t, ok)
	require.Zero(t, c.Exists(ctx, "p:k").Val(), "a look keeps nothing")
	table.Remember("k", "a")
	require.NoError(t, c.PExpire(ctx, "p:k", time.Minute).Err())
	server, ok := table.Lookup("k")
	require.True(t, ok)
	require.Equal(t, "a", server)
	require.Greater(t, c.PTTL(ctx, "p:k").Val(), 59*time.Minute, "asked for, it lives on")

	forever := &Table{Client: c, Prefix: "f:", Expire: -1}
	forever.Remember("k", "a")
	_, ok = forever.Lookup("k")
	require.True(t, ok)
	require.Equal(t, time.Duration(-1), c.PTTL(ctx, "f:k").Val())

	other := &Table{Client: c, Prefix: "p:"}
	other.Remember("k", "b")
	server, _ = table.Lookup("k")
	require.Equal(t, "b", server, "the word of Redis counts")
}

// Entries that Redis has lost are written again by the gateways; the first one stays.
func TestRedisForgets(t *testing.T) {
	c := dial(t, start(t).addr)
	one, two := &Table{Client: c}, &Table{Client: c}
	one.Remember("k", "a")
	two.Local = new(l7.StickTable)
	two.Local.Remember("k", "b")
	require.NoError(t, c.FlushAll(context.Background()).Err())
	for _, table := range []*Table{one, two, one} {
		server, ok := table.Lookup("k")
		require.True(t, ok)
		require.Equal(t, "a", server)
	}
}

// Redis is killed and restarted under load: no request fails, each key stays on its
// server, and the outage is logged.
func TestRedisGoesAndComes(t *testing.T) {
	s := start(t)
	var away atomic.Bool
	table := &Table{
		Client: dial(t, s.addr), Timeout: time.Second, Retry: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		OnChange: func(err error) { away.Store(err != nil) },
	}
	h := gateway(t, table)
	var requests, slowest atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			k := key(t, g)
			home := ask(h, k)
			for ctx.Err() == nil {
				begin := time.Now()
				if got := ask(h, k); got != home {
					t.Errorf("key %s went to %s, then to %s", k, home, got)
					return
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
				requests.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range 2 {
		time.Sleep(100 * time.Millisecond)
		s.down()
		require.Eventually(t, away.Load, time.Minute, time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		s.up()
		require.Eventually(t, func() bool { return !away.Load() }, time.Minute, time.Millisecond)
	}
	cancel()
	wg.Wait()
	t.Logf("%d requests, none failed; slowest %v", requests.Load(), time.Duration(slowest.Load()))
	require.Positive(t, requests.Load())
}
