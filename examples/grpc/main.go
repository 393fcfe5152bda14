// SPDX-License-Identifier: Apache-2.0

// Grpc is a gateway before servers of gRPC. Each call goes to the server that has
// the fewest under way, whatever connection it came by; servers are checked by the
// health protocol of gRPC; streams go both ways, and so does reflection. With
// descriptors of the services it also answers gRPC-Web, Connect and REST with JSON,
// as their google.api.http options say.
//
//	protoc --include_imports -o api.binpb api.proto
//	cd examples/grpc && go run . -to 10.0.0.1:50051 -to 10.0.0.2:50051 -descriptors api.binpb
//	grpcurl -plaintext 127.0.0.1:8080 list
//	curl -d '{"name": "Ann"}' -H 'Content-Type: application/json' -H 'Connect-Protocol-Version: 1' \
//		http://127.0.0.1:8080/hello.Greeter/SayHello
//
// It is a module of its own, as what translates (connectrpc.com/vanguard) is no
// dependency of penstock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/penstock-lb/penstock/l7"
)

func main() {
	g := &Gateway{}
	listen := flag.String("listen", "127.0.0.1:8080", "`ADDR` to listen on")
	files := flag.String("descriptors", "", "`FILE` with a FileDescriptorSet of the services; none means gRPC only")
	flag.Func("to", "`ADDR` of a server; may be repeated", func(s string) error { g.Servers = append(g.Servers, s); return nil })
	flag.Func("retry", "`METHOD` that may run twice, such as /hello.Greeter/SayHello; may be repeated",
		func(s string) error { g.Repeatable = append(g.Repeatable, s); return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, g, *listen, *files); err != nil {
		fmt.Fprintln(os.Stderr, "grpc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, g *Gateway, listen, files string) error {
	if len(g.Servers) == 0 {
		return errors.New("name at least one server by -to")
	}
	if files != "" {
		b, err := os.ReadFile(files)
		if err != nil {
			return err
		}
		g.Services = new(descriptorpb.FileDescriptorSet)
		if err := proto.Unmarshal(b, g.Services); err != nil {
			return fmt.Errorf("%s: %w", files, err)
		}
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("gRPC on %s, for %d servers\n", ln.Addr(), len(g.Servers))
	return g.Serve(ctx, ln)
}

// Serve serves what ln accepts until ctx is done, then gives calls ten seconds to
// end.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	h, checker, err := g.build()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var checks sync.WaitGroup
	defer checks.Wait()
	defer stop()
	checks.Go(func() { _ = checker.Run(ctx) })
	srv := &l7.Server{Handler: h}
	drained := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		drained <- srv.Shutdown(late)
	})()
	if err := srv.Serve(ln); !errors.Is(err, l7.ErrServerClosed) {
		return err
	}
	return <-drained
}
