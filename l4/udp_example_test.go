// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

func ExampleUDPProxy() {
	pool := new(balance.Pool)
	if err := pool.Set(balance.Endpoint{Addr: "127.0.0.1:5301"}, balance.Endpoint{Addr: "127.0.0.1:5302"}); err != nil {
		fmt.Println(err)
		return
	}
	dns := &l4.UDPProxy{
		Pool:        pool,
		Replies:     1, // each query has one answer
		IdleTimeout: 5 * time.Second,
		Accept:      func(c netip.AddrPort) bool { return c.Addr().IsLoopback() },
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() { done <- dns.Serve(pc) }()
	fmt.Println(dns.Shutdown(context.Background()), <-done)
	// Output: <nil> l4: server closed
}
