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
// So a gateway connects to the pods and not to the address of the Service: it chooses
// among them, limits and checks each of them, and drains those that terminate. It needs
// the right to list and watch the endpointslices of discovery.k8s.io in the namespace,
// and no other; examples/kube has a manifest.
//
// To have the servers of more than one Service in a pool, follow a [balance.Merge].
//
// It is a module of its own. Besides penstock it brings k8s.io/client-go, api,
// apimachinery, klog, kube-openapi and utils with what they depend on: golang.org/x/net,
// oauth2, sys, term, text and time, google.golang.org/protobuf, go-openapi, gnostic-models,
// go-restful, libraries for JSON, YAML and CBOR, and some small ones, 46 modules in all
// that are built in. Of client-go's own clients it needs that of discovery.k8s.io only;
// a program that imports k8s.io/client-go/kubernetes builds them all.
package kube
