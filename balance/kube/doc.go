// SPDX-License-Identifier: Apache-2.0

// Package kube finds the endpoints of a pool in Kubernetes: the pods of a Service, by its
// EndpointSlices.
//
//	config, err := rest.InClusterConfig()
//	...
//	client, err := discoveryv1.NewForConfig(config) // k8s.io/client-go/kubernetes/typed/discovery/v1
//	...
//	err = pool.Follow(ctx, &kube.Source{Client: client, Namespace: "shop", Service: "web", Port: "http"})
//
// The gateway connects to the pods and not to the address of the Service: it balances
// between them, limits and checks each of them, and drains those that terminate. Its
// service account needs the right to list and watch the endpointslices of
// discovery.k8s.io in the namespace, and no other; examples/kube has a manifest.
//
// To have the servers of more than one Service in a pool, follow a [balance.Merge].
//
// It is a module of its own. Besides penstock it brings k8s.io/client-go, k8s.io/api,
// k8s.io/apimachinery, k8s.io/klog/v2 and github.com/go-logr/logr, and what these depend on:
// kube-openapi and utils of k8s.io, golang.org/x/net, oauth2, sys, term, text and time,
// google.golang.org/protobuf, go-openapi, gnostic-models, go-restful, libraries for JSON,
// YAML and CBOR, and some small ones: 46 modules are built in. Of the clients in client-go it needs only that of discovery.k8s.io; a program that
// imports k8s.io/client-go/kubernetes builds all of them.
package kube
