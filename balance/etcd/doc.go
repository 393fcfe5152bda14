// SPDX-License-Identifier: Apache-2.0

// Package etcd finds the endpoints of a pool in etcd, and registers this process there.
//
// A gateway follows the keys below a prefix, one for each server:
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"10.0.0.5:2379"}})
//	...
//	err = pool.Follow(ctx, &etcd.Source{Client: client, Prefix: "/services/web/"})
//
// A server keeps its key while it runs:
//
//	err := (&etcd.Registration{
//		Client:   client,
//		Prefix:   "/services/web/",
//		Endpoint: balance.Endpoint{Name: "web-1", Addr: "10.0.0.1:80", Weight: 3},
//	}).Run(ctx)
//
// A value is what package file says of one endpoint, JSON or a line, so that this registers
// one by hand:
//
//	etcdctl put /services/web/web-2 '10.0.0.2:80 weight=2 zone=east'
//
// or what etcd's own package naming/endpoints writes for gRPC, {"Op":0,"Addr":"10.0.0.2:80"},
// whose Metadata become Labels.
//
// It is a module of its own. Besides penstock it brings go.etcd.io/etcd/client/v3 and
// go.etcd.io/etcd/api/v3, and what these depend on: google.golang.org/grpc, protobuf and
// genproto, golang/protobuf, grpc-gateway, golang.org/x/net, sys and text, go.uber.org/zap
// and multierr, go-semver and go-systemd, 16 modules in all that are built in.
package etcd
