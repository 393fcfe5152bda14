// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/ratelimit"
)

// perNetwork limits IPv6 clients by their network, of which each has more
// addresses than it will ever use.
type perNetwork struct{ *ratelimit.Keyed[netip.Prefix] }

func (l perNetwork) Take(client netip.Addr, n int) ratelimit.Decision {
	bits := 32
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits)
	return l.Keyed.Take(p, n)
}

func ExampleLimit_network() {
	l := &Limit{
		Next:      HandlerFunc(func(_ context.Context, c net.Conn) error { fmt.Println("served"); return c.Close() }),
		Refuse:    HandlerFunc(func(_ context.Context, c net.Conn) error { fmt.Println("too many"); return c.Close() }),
		PerClient: perNetwork{&ratelimit.Keyed[netip.Prefix]{Law: perSecond(1, 1)}},
	}
	n := l4test.NewNetwork()
	ln, _ := n.Listen("tcp", "[2001:db8::1]:80")
	for _, from := range []string{"[2001:db8:1:1::1]:1000", "[2001:db8:1:1::2]:1000", "[2001:db8:1:2::1]:1000"} {
		n.DialFrom(netip.MustParseAddrPort(from))(context.Background(), "tcp", "[2001:db8::1]:80")
		c, _ := ln.Accept()
		l.ServeConn(context.Background(), c)
	}
	// Output:
	// served
	// too many
	// served
}
