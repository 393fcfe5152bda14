// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// A server of DNS is well if it answers a question over UDP. A port that nothing listens on
// cannot be told by a connect, since UDP has none.
func ExampleFunc_dns() {
	var probe health.Probe = health.Func(func(ctx context.Context, e balance.Endpoint) error {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", e.Addr)
		}}
		_, err := r.LookupNetIP(ctx, "ip4", "health.example.") // a name that the servers know
		if e2, ok := errors.AsType[*net.DNSError](err); ok {
			e2.Server = e.Addr // a Resolver names that of resolv.conf
		}
		return err
	}) // for a Checker: its Timeout ends ctx; a Resolver asks again as often and as late as resolv.conf says

	addr, broken, stop := nameServer()
	defer stop()
	check := func() {
		fmt.Println("well:", probe.Probe(context.Background(), balance.Endpoint{Addr: addr}) == nil)
	}
	check()
	broken.Store(true)
	check()
	// Output:
	// well: true
	// well: false
}

// nameServer answers any question about an address, and with SERVFAIL once it is broken.
func nameServer() (addr string, broken *atomic.Bool, stop func()) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	broken = new(atomic.Bool)
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			m.Response, m.Additionals = true, nil
			if broken.Load() {
				m.RCode = dnsmessage.RCodeServerFailure
			} else {
				q := m.Questions[0]
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
				}}
			}
			if reply, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(reply, from)
			}
		}
	}()
	return c.LocalAddr().String(), broken, func() { _ = c.Close() }
}
