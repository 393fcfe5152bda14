// SPDX-License-Identifier: Apache-2.0

package redisstick_test

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/redisstick"
)

// A session stays on its server whichever gateway its requests come to.
func ExampleTable() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}, ContextTimeoutEnabled: true})
	defer client.Close()
	stick := &l7.Stick{
		Key:   l7.ByHeader("X-Session"),
		Table: &redisstick.Table{Client: client},
		Next:  &l7.Proxy{Pool: &balance.Pool{Name: "web"}},
	}
	fmt.Println(stick.Check())
	// Output: <nil>
}
