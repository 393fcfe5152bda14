// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/vanguard"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
)

// A Gateway is a port before servers of gRPC in plain text.
type Gateway struct {
	Servers    []string
	Repeatable []string                        // methods that may run twice: they are tried again when a server says UNAVAILABLE
	Services   *descriptorpb.FileDescriptorSet // of the services that are also to be had as gRPC-Web, Connect and REST; nil means none
	Interval   time.Duration                   // between checks of a server; 0 means 2s
}

// build returns the handler, and what has to run beside it.
func (g *Gateway) build() (http.Handler, *health.Checker, error) {
	pool := &balance.Pool{Name: "grpc", Policy: balance.LeastConn{}}
	list := make([]balance.Endpoint, len(g.Servers))
	for i, addr := range g.Servers {
		list[i].Addr = addr
	}
	if err := pool.Set(list...); err != nil {
		return nil, nil, err
	}
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	proxy := &l7.Proxy{
		Pool:     pool,
		Upstream: &l7.Upstream{Protocols: h2c},
		// A call that no server has processed is sent again in any case, as in gRPC. 503
		// is UNAVAILABLE here, if it comes before any message.
		Retry: l7.Retry{Tries: 3, Statuses: []int{http.StatusServiceUnavailable}, Repeatable: func(x *l7.Exchange) bool {
			return slices.Contains(g.Repeatable, x.Path)
		}},
	}
	checker := &health.Checker{Pools: []*balance.Pool{pool}, Probe: health.GRPC{}, Interval: g.Interval, Timeout: 2 * time.Second}
	if g.Services == nil {
		return proxy, checker, nil
	}
	translated, err := translate(g.Services, proxy)
	if err != nil {
		return nil, nil, err
	}
	// gRPC calls need no translation.
	spoken := l7.Header{Name: "Content-Type", Test: func(v string) bool {
		return v == "application/grpc" || strings.HasPrefix(v, "application/grpc+")
	}}
	return l7.NewRouter(
		l7.Route{Name: "grpc", Match: spoken, Handler: proxy},
		l7.Route{Name: "translated", Handler: translated},
	), checker, nil
}

// translate returns a handler that translates other protocols to gRPC, for next.
func translate(set *descriptorpb.FileDescriptorSet, next http.Handler) (http.Handler, error) {
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, err
	}
	var services []*vanguard.Service
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			services = append(services, vanguard.NewServiceWithSchema(f.Services().Get(i), next,
				vanguard.WithTargetProtocols(vanguard.ProtocolGRPC), vanguard.WithTargetCodecs("proto")))
		}
		return true
	})
	return vanguard.NewTranscoder(services)
}
