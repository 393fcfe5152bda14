// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A transparent proxy: a firewall redirects what clients send to any address, and each
// connection goes on to where its client wanted. The pool counts and limits what the one
// endpoint stands for.
func ExampleDialingFor() {
	pool := &balance.Pool{Name: "outside"}
	if err := pool.Set(balance.Endpoint{Name: "anywhere", Addr: "anywhere:1", MaxConns: 1000}); err != nil {
		fmt.Println(err)
		return
	}
	self := netip.MustParseAddrPort("192.0.2.1:3128")
	proxy := &l4.Proxy{
		Pool: pool,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			client, ok := l4.DialingFor(ctx)
			if !ok {
				return nil, errors.New("for nobody")
			}
			dst, err := l4.OriginalDst(client.Conn)
			if err != nil {
				return nil, err
			}
			if dst == self {
				return nil, errors.New("not redirected")
			}
			return new(net.Dialer).DialContext(ctx, network, dst.String())
		},
	}
	fmt.Println(proxy.Check())
	// Output: <nil>
}
