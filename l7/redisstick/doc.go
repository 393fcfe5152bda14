// SPDX-License-Identifier: Apache-2.0

// Package redisstick keeps sticky tables in Redis, for all gateways together.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
//	stick := &l7.Stick{
//		Key:   l7.ByHeader("X-Session"),
//		Table: &redisstick.Table{Client: client},
//		Next:  proxy,
//	}
//
// Redis may be one server, a Ring, a Cluster, or watched by Sentinels (MasterName in the options); with TLS
// (TLSConfig) and a user, whose least rights are
//
//	ACL SETUSER gateway on >secret ~penstock:stick:* -@all +get +getex +set +setnx +ping
//
// and, in a Cluster, +cluster|slots +command. After a failover each gateway lives by what it has seen until its client has
// found the new master.
//
// It is a module of its own, so that penstock itself does not depend on a
// Redis client. Besides penstock it brings github.com/redis/go-redis/v9 and what that depends
// on: cespare/xxhash, go.uber.org/atomic and golang.org/x/sys.
package redisstick
