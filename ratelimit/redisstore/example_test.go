// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/ratelimit"
	"github.com/penstock-lb/penstock/ratelimit/redisstore"
)

// All gateways together admit a hundred requests a second of each tenant.
func ExampleStore() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}, ContextTimeoutEnabled: true})
	defer client.Close()
	gateways := &balance.Pool{Name: "gateways"} // which follows a source
	limit := &ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{
		Store:    &redisstore.Store{Client: client},
		Law:      ratelimit.GCRA{Rate: ratelimit.PerSecond(100)},
		Prefix:   "tenant:",
		Gateways: (&balance.Share{Of: gateways, Self: "gw-1"}).Count,
	}}
	fmt.Println(limit.Check())
	// go limit.Run(ctx), and then limit.Take("acme", 1) decides.

	// Output: <nil>
}
