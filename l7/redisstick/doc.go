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
// It is a module of its own, so that penstock itself does not depend on a
// Redis client.
package redisstick
