// SPDX-License-Identifier: Apache-2.0

package redisstick

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// rights are those of a user that keeps tables.
var rights = []string{"~penstock:stick:*", "-@all", "+get", "+getex", "+set", "+setnx", "+ping"}

// table returns a table in Redis, through a client of its own.
func table(t *testing.T, options *redis.UniversalOptions, on func(error)) *Table {
	client := redis.NewUniversalClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return &Table{Client: client, Timeout: 10 * time.Second, Retry: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), OnChange: on}
}

// TestTLSAndUser: over TLS, with a user that may do no more than needed, and one with a wrong password.
func TestTLSAndUser(t *testing.T) {
	options := secured(t)
	never := func(err error) { t.Errorf("changed: %v", err) }
	one, two := table(t, options, never), table(t, options, never)
	one.Remember("k", "a")
	server, ok := two.Lookup("k")
	require.True(t, ok)
	require.Equal(t, "a", server)
	_, ok = two.Lookup("x")
	require.False(t, ok)

	options.Password = "wrong"
	var said error
	table(t, options, func(err error) { said = err }).Remember("k", "b")
	require.ErrorContains(t, said, "WRONGPASS")
}

// TestFailover: a master is killed, with sentinels or in a cluster. A gateway that has not
// seen its entries before finds them again.
func TestFailover(t *testing.T) {
	for name, begin := range map[string]func() (victim *server, options *redis.UniversalOptions){
		"sentinel": func() (*server, *redis.UniversalOptions) { return watched(t) },
		"cluster": func() (*server, *redis.UniversalOptions) {
			all, options := replicated(t)
			client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: options.Addrs})
			defer client.Close()
			master, err := client.MasterForKey(context.Background(), "penstock:stick:k")
			require.NoError(t, err)
			return all[master.Options().Addr], options
		},
	} {
		t.Run(name, func(t *testing.T) {
			victim, options := begin()
			away := make(chan bool, 100)
			one, two := table(t, options, func(err error) { away <- err != nil }), table(t, options, func(error) {})
			one.Remember("k", "a")
			server, ok := two.Lookup("k")
			require.True(t, ok)
			require.Equal(t, "a", server)
			two = table(t, options, func(error) {})
			two.Lookup("other")

			replicates(t, victim.addr)
			victim.down()
			killed := time.Now()
			require.Eventually(t, func() bool {
				server, ok := one.Lookup("k")
				require.True(t, ok, "it keeps what it has seen")
				require.Equal(t, "a", server)
				server, ok = two.Lookup("k")
				return ok && server == "a"
			}, time.Minute, 20*time.Millisecond)
			t.Logf("known again after %v", time.Since(killed).Round(time.Millisecond))
			require.True(t, <-away)
		})
	}
}
