// SPDX-License-Identifier: Apache-2.0

package dns_test

import (
	"context"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
)

// A pool follows the SRV records of a service, and has a fixed server as backup.
func ExampleSource() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // an example need not go on

	var pool balance.Pool
	_ = pool.Follow(ctx, balance.Merge{Sources: []balance.Source{
		&dns.Source{
			Name: "internal.example", Service: "http",
			Servers: []string{"10.0.0.53:53", "10.1.0.53:53"},
			Timeout: time.Second,
			Edit:    func(e *balance.Endpoint) { e.MaxConns = 100 },
		},
		balance.Static(balance.Endpoint{Addr: "backup.example:80", Tier: 1000}),
	}})
	// Output:
}
