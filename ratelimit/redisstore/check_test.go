// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/ratelimit"
	"github.com/penstock-lb/penstock/ratelimit/redisstore"
)

// TestStoreWithoutAClient is named where it is held, and at its first use.
func TestStoreWithoutAClient(t *testing.T) {
	law := ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}
	err := (&ratelimit.Shared[string]{Law: law, Store: &redisstore.Store{}}).Check()
	var wrong *penstock.ConfigError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "Shared.Store.Client", wrong.Field)
	_, err = (&redisstore.Store{}).Take(t.Context(), "a", law, 1)
	require.ErrorAs(t, err, &wrong)
	require.ErrorAs(t, (&redisstore.Store{}).Refund(t.Context(), "a", law, ratelimit.Decision{}), &wrong)
}

// TestSlowRedisIsNotWaitedFor has a Redis that takes connections and says nothing. A
// client of go-redis waits for ReadTimeout, whatever the context says, unless it is told
// otherwise: one that was not is named, where it is held and at its first use.
func TestSlowRedisIsNotWaitedFor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	addr := ln.Addr().String()
	for _, heeds := range []bool{true, false} {
		for _, client := range []interface {
			redis.Scripter
			Close() error
		}{
			redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: heeds, ReadTimeout: time.Hour}),
			redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ContextTimeoutEnabled: heeds, ReadTimeout: time.Hour}),
			redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": addr}, ContextTimeoutEnabled: heeds, ReadTimeout: time.Hour}),
		} {
			defer client.Close()
			store := &redisstore.Store{Client: client}
			limit := &ratelimit.Shared[string]{
				Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1000)}, Store: store, Timeout: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
			}
			var wrong *penstock.ConfigError
			if heeds {
				require.NoError(t, limit.Check())
			} else {
				require.ErrorAs(t, limit.Check(), &wrong)
				require.Equal(t, "Shared.Store.Client.ContextTimeoutEnabled", wrong.Field)
			}
			begin := time.Now()
			d := limit.Take("a", 1)
			require.Less(t, time.Since(begin), time.Minute, "%T", client)
			require.True(t, d.OK)
			require.True(t, d.Local)
		}
	}
}
