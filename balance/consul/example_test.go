// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/consul"
)

// A gateway follows the instances of a service. (Here Consul is in memory.)
func ExampleSource() {
	var client *api.Client = exampleServer().client()

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	var pool balance.Pool
	_ = pool.Follow(ctx, &consul.Source{
		Client:  client,
		Service: "web",
		Edit:    func(e *balance.Endpoint) { e.MaxConns = 100 },
	})
	for s := range pool.All() {
		fmt.Println(s.Name(), s.Addr(), s.State())
	}
	// Output:
	// n1/web-1 10.0.0.1:80 up
	// n1/web-2 10.0.0.2:80 unweighted
}

func exampleServer() *server {
	s := newServer()
	s.set("web-1", "10.0.0.1:80", nil, "passing")
	s.set("web-2", "10.0.0.2:80", nil, "passing", "maint")
	s.set("web-3", "10.0.0.3:80", nil, "critical")
	return s
}
