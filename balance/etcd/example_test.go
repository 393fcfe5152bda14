// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/etcd"
)

// A gateway follows the keys below a prefix. (Here etcd is a store in memory.)
func ExampleSource() {
	var client *clientv3.Client = exampleStore.client(context.Background())
	exampleStore.set("/services/web/web-1", "10.0.0.1:80 weight=3")
	exampleStore.set("/services/web/web-2", `{"Op":0,"Addr":"10.0.0.2:80","Metadata":{"rack":"r7"}}`)

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	var pool balance.Pool
	_ = pool.Follow(ctx, &etcd.Source{
		Client: client,
		Prefix: "/services/web/",
		Edit:   func(e *balance.Endpoint) { e.MaxConns = 100 },
	})
	for s := range pool.All() {
		fmt.Println(s.Name(), s.Addr(), s.Endpoint().Labels)
	}
	// Output:
	// web-1 10.0.0.1:80 map[]
	// web-2 10.0.0.2:80 map[rack:r7]
}

// A server that leaves goes on serving until gateways have heard of it.
func ExampleRegistration() {
	serve := func(stop context.Context, client *clientv3.Client, ln net.Listener) error {
		srv := new(http.Server)
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(ln) }()
		reg := &etcd.Registration{Client: client, Prefix: "/services/web/", Endpoint: balance.Endpoint{Name: "web-1", Addr: ln.Addr().String()}}
		err := reg.Run(stop) // until stop is done, and the key is removed
		time.Sleep(time.Second)
		return errors.Join(err, srv.Shutdown(context.WithoutCancel(stop)), <-ended)
	}
	_ = serve
	// Output:
}

var exampleStore = newStore()
