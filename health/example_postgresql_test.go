// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"regexp"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// primary returns a probe that passes on the primary only, without a driver and without a
// query. When a session begins, PostgreSQL 14 and later report in_hot_standby: on for a
// standby, off for the primary. (PostgreSQL documentation, "Message Flow", ParameterStatus.)
//
// The user must be let in without a password, by a line of pg_hba.conf for this gateway only:
//
//	host postgres monitor 10.0.0.9/32 trust
func primary(user string, connect health.Connect) health.Script {
	const version = "\x00\x03\x00\x00"
	startup := version + "user\x00" + user + "\x00database\x00postgres\x00\x00"
	length := binary.BigEndian.AppendUint32(nil, uint32(4+len(startup)))
	return health.Script{Connect: connect, Steps: []health.Step{
		{Name: "startup", Send: string(length) + startup, Expect: health.Match{Regexp: regexp.MustCompile(`in_hot_standby\x00(on|off)\x00`)}},
		{Name: "role", Expect: health.Match{Contains: "in_hot_standby\x00on\x00", Not: true}}, // of the same bytes
		{Name: "end", Send: "X\x00\x00\x00\x04"},
	}}
}

// A probe that passes on the primary of PostgreSQL only: in a Checker over all servers, with
// an l4.Proxy whose CutOnDown is set, it sends clients to the new primary after a failover.
func ExamplePostgreSQL_primary() {
	network := l4test.NewNetwork() // in memory; without Dial it is the real one
	for addr, standby := range map[string]bool{"10.0.0.1:5432": false, "10.0.0.2:5432": true} {
		ln, _ := network.Listen("tcp", addr)
		s := &healthtest.Server{Service: healthtest.PostgreSQL{Trust: true, Standby: standby}}
		go s.Serve(ln)
		defer s.Close()
	}
	probe := primary("monitor", health.Connect{Dial: network.DialContext}) // see above
	// checker := &health.Checker{Pools: []*balance.Pool{all}, Probe: probe}
	// proxy := &l4.Proxy{Pool: all, CutOnDown: true}

	for _, addr := range []string{"10.0.0.1:5432", "10.0.0.2:5432"} {
		err := probe.Probe(context.Background(), balance.Endpoint{Addr: addr})
		fmt.Println(addr, health.CodeOf(err))
	}
	// Output:
	// 10.0.0.1:5432 ok
	// 10.0.0.2:5432 unexpected content
}
