// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/ratelimit"
)

func ExampleLimit() {
	h := &l4.Limit{
		PerClient: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(60), Burst: 2}},
		Next: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			fmt.Println("served")
			return c.Close()
		}),
		Refuse: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			fmt.Println("too many from", c.RemoteAddr().(*net.TCPAddr).IP)
			return c.Close()
		}),
	}
	for range 3 {
		_, server := l4test.Pipe()
		h.ServeConn(context.Background(), server)
	}
	// Output:
	// served
	// served
	// too many from 192.0.2.1
}

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
	l := &l4.Limit{
		Next:      l4.HandlerFunc(func(_ context.Context, c net.Conn) error { fmt.Println("served"); return c.Close() }),
		Refuse:    l4.HandlerFunc(func(_ context.Context, c net.Conn) error { fmt.Println("too many"); return c.Close() }),
		PerClient: perNetwork{&ratelimit.Keyed[netip.Prefix]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1), Burst: 1}}},
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

func ExampleThrottle() {
	th := &l4.Throttle{
		Next: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			_, err := c.Write(make([]byte, 300<<10))
			return err
		}),
		Out: l4.Bandwidth{PerConn: func(netip.Addr) l4.Limiter {
			return &ratelimit.Limiter{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1 << 20), Burst: 64 << 10}}
		}},
	}
	client, server := l4test.Pipe()
	start := time.Now()
	go th.ServeConn(context.Background(), server)
	n, err := io.Copy(io.Discard, client)
	fmt.Println(n, err, time.Since(start) > 200*time.Millisecond)
	// Output: 307200 <nil> true
}
