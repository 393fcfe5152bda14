// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"time"

	client "k8s.io/client-go/kubernetes/typed/discovery/v1"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/kube"
)

// A gateway follows the pods of a Service. (Here the API server is client-go's fake.)
func ExampleSource() {
	var api client.EndpointSlicesGetter = exampleAPI()

	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	var pool balance.Pool
	_ = pool.Follow(ctx, &kube.Source{
		Client:    api,
		Namespace: "shop",
		Service:   "web",
		Port:      "http",
		Edit:      func(e *balance.Endpoint) { e.MaxConns = 100 },
	})
	for s := range pool.All() {
		fmt.Println(s.Name(), s.Addr(), s.Endpoint().Zone, s.State())
	}
	// Output:
	// web-5d7-abcde 10.0.0.1:8080 east up
	// web-5d7-fghij 10.0.0.2:8080 west unweighted
}

func exampleAPI() *api {
	a := newAPI()
	_ = a.tracker.Create(resource, slice("web-1", "web-5d7-abcde 10.0.0.1 zone=east ready", "web-5d7-fghij 10.0.0.2 zone=west drain"), "shop")
	return a
}
