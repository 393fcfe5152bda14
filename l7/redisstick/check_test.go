// SPDX-License-Identifier: Apache-2.0

package redisstick_test

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/redisstick"
)

func TestTableWithoutAClient(t *testing.T) {
	err := (&l7.Stick{Key: l7.ByPath, Table: &redisstick.Table{Local: &l7.StickTable{Max: -1}}, Next: l7.Drop{}}).Check()
	require.ErrorContains(t, err, "Stick.Table.Client: <nil> must be a client of Redis")
	require.ErrorContains(t, err, "Stick.Table.Local.StickTable.Max: -1 must not be negative")
}

// TestSlowRedisIsNotWaitedFor has a Redis that takes connections and says nothing. A
// client of go-redis waits for ReadTimeout, whatever the context says, unless it is told
// otherwise: one that was not is named.
func TestSlowRedisIsNotWaitedFor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	addr := ln.Addr().String()
	for _, heeds := range []bool{true, false} {
		for _, client := range []redis.UniversalClient{
			redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: heeds, ReadTimeout: time.Hour}),
			redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, ContextTimeoutEnabled: heeds, ReadTimeout: time.Hour}),
			redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": addr}, ContextTimeoutEnabled: heeds, ReadTimeout: time.Hour}),
		} {
			defer client.Close()
			table := &redisstick.Table{Client: client, Timeout: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
			err := (&l7.Stick{Key: l7.ByPath, Table: table, Next: l7.Drop{}}).Check()
			if !heeds {
				require.ErrorContains(t, err, "Stick.Table.Client.ContextTimeoutEnabled: false must be true")
				continue
			}
			require.NoError(t, err)
			begin := time.Now()
			table.Remember("a", "b")
			require.Less(t, time.Since(begin), time.Minute, "%T", client)
		}
	}
}
