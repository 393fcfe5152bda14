// SPDX-License-Identifier: Apache-2.0

package chaostest_test

import (
	"testing"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/chaostest"
)

// The gateway that a program runs, through a hundred stories of servers that fail. In a
// test file this is the body of TestGatewayInDisorder.
func Example() {
	testGatewayInDisorder := func(t *testing.T) {
		plan := chaostest.Plan{Seeds: 100, NoLoss: true}
		chaostest.Run(t, plan, func(w *chaostest.World) chaostest.Gateway {
			pool := &balance.Pool{Seed: 1, Budget: balance.Budget{Share: 1}}
			if err := pool.Set(w.Endpoints()...); err != nil {
				t.Fatal(err)
			}
			w.Pool(pool)
			up := &l7.Upstream{Dial: w.Dial}
			w.Cleanup(up.CloseIdle)
			return &l7.Server{Handler: &l7.Proxy{Pool: pool, Upstream: up, Retry: l7.Retry{Tries: 3, Classes: []balance.Class{
				balance.ConnectFailed, balance.ConnectTimeout, balance.Timeout, balance.Reset, balance.Protocol,
			}}}}
		})
	}
	_ = testGatewayInDisorder
}
