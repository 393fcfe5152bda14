// SPDX-License-Identifier: Apache-2.0

package redisstick

import (
	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock"
)

// Check returns what is wrong with t, a [*penstock.ConfigError]. A [l7.Stick]
// with the table calls it when it is first used.
func (t *Table) Check() error {
	var m penstock.Mistakes
	m.Need("Table.Client", t.Client, "must be a client of Redis")
	m.If(!heedsContext(t.Client), "Table.Client.ContextTimeoutEnabled", false,
		"must be true in its options: otherwise the client waits ReadTimeout for a slow Redis, whatever Timeout says")
	m.In("Table.Local", t.Local)
	return m.Err()
}

// heedsContext reports whether the commands of a client end with their context. Those of
// go-redis do only with ContextTimeoutEnabled. Clients of other types are assumed to.
func heedsContext(client redis.Cmdable) bool {
	switch c := client.(type) {
	case *redis.Client:
		return c == nil || c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return c == nil || c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		return c == nil || c.Options().ContextTimeoutEnabled
	}
	return true
}
