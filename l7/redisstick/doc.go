// SPDX-License-Identifier: Apache-2.0

// Package redisstick keeps sticky tables in Redis, shared by all gateways.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
//	stick := &l7.Stick{
//		Key:   l7.ByHeader("X-Session"),
//		Table: &redisstick.Table{Client: client},
//		Next:  proxy,
//	}
//
// Redis may be one server, a Ring, a Cluster, or a master that Sentinels watch (MasterName in the options), with
// TLS (TLSConfig) and a user. The rights that the user needs are
//
//	ACL SETUSER gateway on >secret ~penstock:stick:* -@all +get +getex +set +setnx +ping
//
// and, in a Cluster, +cluster|slots and +command. After a failover, each gateway uses the entries that it has seen itself
// until its client has found the new master.
//
// It is a module of its own. Besides penstock it brings github.com/redis/go-redis/v9, and
// what that depends on: cespare/xxhash, go.uber.org/atomic and golang.org/x/sys.
package redisstick
