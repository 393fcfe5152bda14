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
// It is a module of its own, so that penstock itself does not depend on a
// Redis client.
package redisstore
