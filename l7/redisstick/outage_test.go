// SPDX-License-Identifier: Apache-2.0

package redisstick

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// half is a Redis without one of its nodes: keys that begin with x have no reply.
type half struct{ asked atomic.Int64 }

func (h *half) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

func (h *half) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		h.asked.Add(1)
		time.Sleep(time.Millisecond)
		if strings.Contains(cmd.String(), ":x") {
			cmd.SetErr(errors.New("gone"))
		}
		return cmd.Err()
	}
}

func (h *half) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestHalfOfRedisIsAway: replies of the other half do not end the outage each time, which
// would be logged as often as there are requests.
func TestHalfOfRedisIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
		defer client.Close()
		h := new(half)
		client.AddHook(h)
		var changes atomic.Int64
		table := &Table{Client: client, Logger: slog.New(slog.DiscardHandler), OnChange: func(error) { changes.Add(1) }}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		load := func(key string) {
			for ctx.Err() == nil {
				table.Remember(key, "a")
				time.Sleep(time.Millisecond)
			}
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { load("x") })
			wg.Go(func() { load("y") })
		}
		wg.Wait()
		require.Positive(t, changes.Load())
		require.LessOrEqual(t, changes.Load(), int64(22), "one outage a second, and its end")
	})
}

// TestOutageGoesByTheMonotonicClock: setting the machine's clock back neither delays the next
// attempt to reach Redis, nor makes a reply look older than the outage. Package time compares
// without the wall clock only if both times have a monotonic reading.
func TestOutageGoesByTheMonotonicClock(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	defer client.Close()
	client.AddHook(new(half))
	table := &Table{Client: client, Retry: time.Hour, Logger: slog.New(slog.DiscardHandler)}
	monotonic := func(times ...time.Time) {
		t.Helper()
		for _, at := range times {
			require.Contains(t, at.String(), " m=")
		}
	}
	asked, ok := table.ask()
	require.True(t, ok)
	monotonic(asked)
	table.Remember("x", "a") // fails
	was := table.away.Load()
	monotonic(was.since, was.retry)
	table.Remember("x", "a") // too early to ask
	require.Same(t, was, table.away.Load())

	table.away.Store(&outage{since: was.since, retry: time.Now()})
	table.Remember("x", "a") // fails again
	monotonic(table.away.Load().since, table.away.Load().retry)
}
