// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
)

// A Cluster is a primary and its replicas.
type Cluster struct {
	Primary  string // "host:port"
	Replicas []string
	User     string // of the health check; any name will do
	Dial     l4.DialFunc
}

// fronts are a server for each port, and the checks of both pools.
func (c *Cluster) fronts() (writes, reads *l4.Server, checker *health.Checker, err error) {
	primary := &balance.Pool{Name: "primary"}
	if err := primary.Set(balance.Endpoint{Addr: c.Primary}); err != nil {
		return nil, nil, nil, err
	}
	// Sessions last, so the replica with the fewest is best. The primary is in a tier
	// that serves only when no replica can.
	replicas := &balance.Pool{Name: "replicas", Policy: balance.LeastConn{}}
	members := []balance.Endpoint{{Addr: c.Primary, Tier: 1}}
	for _, addr := range c.Replicas {
		members = append(members, balance.Endpoint{Addr: addr})
	}
	if err := replicas.Set(members...); err != nil {
		return nil, nil, nil, err
	}
	checker = &health.Checker{
		Pools:    []*balance.Pool{primary, replicas},
		Probe:    health.PostgreSQL{User: c.User, Connect: health.Connect{Dial: c.Dial}},
		Key:      func(e balance.Endpoint) string { return e.Addr }, // the primary is in both pools
		Interval: 2 * time.Second, Fast: 500 * time.Millisecond,
	}
	front := func(pool *balance.Pool) *l4.Server {
		return &l4.Server{Handler: &l4.Proxy{Pool: pool, Dial: c.Dial, IdleTimeout: 8 * time.Hour, CutOnDown: true}}
	}
	return front(primary), front(replicas), checker, nil
}
