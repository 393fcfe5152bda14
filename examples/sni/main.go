// SPDX-License-Identifier: Apache-2.0

// Sni routes TLS by the name the client asks for. Names that have servers of
// their own pass through, unread and with their own certificates; all others
// end here, with the certificate given. HTTP without TLS is sent to HTTPS.
//
//	go run ./examples/sni -listen :443 -cert local.pem -key local.key \
//		-pass a.example.com=10.0.0.1:443 -pass '*.b.example.com=10.0.0.2:443'
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

func main() {
	f := &Front{Pass: map[string]string{}}
	listen := flag.String("listen", "127.0.0.1:8443", "`ADDR` to listen on")
	cert := flag.String("cert", "", "certificate `FILE` for names that end here")
	key := flag.String("key", "", "key `FILE` of it")
	flag.Func("pass", "`NAME=ADDR` to pass through; may be repeated", func(s string) error {
		name, addr, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=ADDR", s)
		}
		f.Pass[name] = addr
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, f, *listen, *cert, *key); err != nil {
		fmt.Fprintln(os.Stderr, "sni:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f *Front, listen, cert, key string) error {
	if cert == "" || key == "" {
		return errors.New("-cert and -key are needed: names that are not in a -pass end here, with that certificate")
	}
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	if err := f.Certificates.Set(c); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("TLS on %s, %d names pass through\n", ln.Addr(), len(f.Pass))
	return f.Serve(ctx, ln)
}

// Serve serves what ln accepts until ctx is done, then gives connections ten
// seconds to end.
func (f *Front) Serve(ctx context.Context, ln net.Listener) error {
	local := new(l4.Listener)
	router, err := f.router(local)
	if err != nil {
		return err
	}
	streams, requests := &l4.Server{Handler: router}, f.web()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	wg.Go(func() { fail(streams.Serve(ln)) })
	wg.Go(func() { fail(requests.Serve(local)) })
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	wg.Go(func() { _ = requests.Shutdown(drain) })
	wg.Go(func() { _ = streams.Shutdown(drain) })
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) { // a signal is a cause that is Canceled
		return err // a part failed before the context ended
	}
	return nil
}
