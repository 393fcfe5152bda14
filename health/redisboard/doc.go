// SPDX-License-Identifier: Apache-2.0

// Package redisboard is where gateways tell each other, in Redis, which servers are well.
//
//	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
//	probe := &health.Divided{
//		Of:    health.HTTP{Path: "/healthz"},
//		Share: share,
//		Board: &redisboard.Board{Client: client, Name: "web"},
//	}
//
// It is a module of its own. Besides penstock it brings github.com/redis/go-redis/v9, and
// what that depends on: cespare/xxhash, go.uber.org/atomic and golang.org/x/sys.
package redisboard
