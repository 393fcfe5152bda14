// SPDX-License-Identifier: Apache-2.0

// Package consul finds the endpoints of a pool in Consul: the instances of a service
// whose checks pass.
//
//	client, err := api.NewClient(api.DefaultConfig()) // github.com/hashicorp/consul/api
//	...
//	err = pool.Follow(ctx, &consul.Source{Client: client, Service: "web", Tags: []string{"v2"}})
//
// Several services, or datacenters, are a [balance.Merge] of sources; in another datacenter
// they may be a backup:
//
//	&consul.Source{Client: client, Service: "web", Query: api.QueryOptions{Datacenter: "west"},
//		Edit: func(e *balance.Endpoint) { e.Tier = 1 }}
//
// A token needs service:read of the service, and node:read.
//
// It is a module of its own. Besides penstock it brings github.com/hashicorp/consul/api, and
// what that depends on: go-cleanhttp, go-hclog, go-metrics, go-multierror, go-rootcerts,
// go-immutable-radix, golang-lru, serf and errwrap of hashicorp, mapstructure,
// armon/go-metrics, fatih/color and two modules for its terminals, golang.org/x/exp and
// x/sys, 17 modules in all that are built in. It was tried with Consul 1.20.6.
package consul
