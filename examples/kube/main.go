// SPDX-License-Identifier: Apache-2.0

// Kube is a gateway in a cluster of Kubernetes, before the pods of a Service: it chooses
// among the pods themselves, prefers those of its own zone, and drains those that
// terminate.
//
//	CGO_ENABLED=0 go build -o gateway . && docker build -t registry.example/gateway . && docker push registry.example/gateway
//	kubectl apply -n shop -f gateway.yaml
//
// The gateway listens on 8080. On 9090 it has the page for operators, which also says how
// old its servers are, and /ready, which fails until it has some:
//
//	kubectl port-forward -n shop deploy/gateway 9090
//
// Out of a cluster it takes the address of the API server, with what a program on the same
// machine needs to try it: kubectl proxy & go run . -api http://127.0.0.1:8001 -namespace shop.
// The pods have to be reachable from there.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	discovery "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
)

func main() {
	g := &Gateway{}
	flag.StringVar(&g.Namespace, "namespace", os.Getenv("NAMESPACE"), "`NAME` of the namespace of the Service")
	flag.StringVar(&g.Service, "service", "web", "`NAME` of the Service")
	flag.StringVar(&g.Port, "port", "", "`PORT` of it, by name, or by number in the pods; empty means the only one")
	flag.StringVar(&g.Zone, "zone", os.Getenv("ZONE"), "`ZONE` of this gateway, whose servers are preferred; empty means that zones do not count")
	flag.DurationVar(&g.LameDuck, "lame-duck", 10*time.Second, "how long to go on serving while others hear that it leaves")
	api := flag.String("api", "", "`URL` of the API server; empty means that of the cluster this runs in")
	listen := flag.String("listen", ":8080", "`ADDR` to serve")
	admin := flag.String("admin", ":9090", "`ADDR` of the page for operators and /ready")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, g, *api, *listen, *admin); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, g *Gateway, api, listen, admin string) error {
	config := &rest.Config{Host: api}
	if api == "" {
		var err error
		if config, err = rest.InClusterConfig(); err != nil {
			return err
		}
	}
	client, err := discovery.NewForConfig(config)
	if err != nil {
		return err
	}
	g.API = client
	front, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	page, err := net.Listen("tcp", admin)
	if err != nil {
		return err
	}
	return g.Run(ctx, front, page)
}
