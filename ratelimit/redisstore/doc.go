// SPDX-License-Identifier: Apache-2.0

// Package redisstore keeps rate limits in Redis, for all gateways together.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
//	limit := &ratelimit.Shared[string]{
//		Store:  &redisstore.Store{Client: client},
//		Law:    ratelimit.GCRA{Rate: ratelimit.PerSecond(100)},
//		Prefix: "tenant:",
//	}
//
// With [ratelimit.Leased] around that limit a decision costs no round trip, and Redis has that much less to do:
// 20 000 decisions on one key at 100 000 a second were 50 questions and 6 ms of its time instead of 20 000 and 297 ms.
//
// Redis may be one server, a Ring, a Cluster (each script is about one key, and so about one slot), or watched by
// Sentinels (MasterName in the options); with TLS (TLSConfig) and a user, whose least rights are
//
//	ACL SETUSER gateway on >secret ~penstock:* -@all +evalsha +eval +get +set +del +time +ping
//
// and, in a Cluster, +cluster|slots +command. After a failover limits are local until the client has found the
// new master, and what the old one had not yet told its replicas is forgotten. A Redis that does not know the scripts
// is sent them.
//
// It is a module of its own. Besides penstock it brings github.com/redis/go-redis/v9, and
// what that depends on: cespare/xxhash, go.uber.org/atomic and golang.org/x/sys.
package redisstore
