// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock"
)

// Check returns what is wrong with s, a [*penstock.ConfigError]. Take and Refund
// return it, too.
func (s *Store) Check() error {
	var m penstock.Mistakes
	m.Need("Store.Client", s.Client, "must be a client of Redis")
	m.If(!heedsContext(s.Client), "Store.Client.ContextTimeoutEnabled", false,
		"must be true in its options: otherwise the client waits ReadTimeout for a slow Redis, whatever the limit's Timeout says")
	return m.Err()
}

// heedsContext reports whether the commands of a client end with their context. Those of
// go-redis do not unless they are told to. A client of another kind is believed to.
func heedsContext(client redis.Scripter) bool {
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
