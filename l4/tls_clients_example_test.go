// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleClientVerifier() {
	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	ca := l4test.NewAuthority("authority")
	ann, eve := ca.Issue("ann"), ca.Issue("eve")
	_ = os.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM(), 0o600)
	_ = os.WriteFile(filepath.Join(dir, "ca.crl"), ca.RevocationList(nil, eve), 0o600)

	clients := &l4.ClientVerifier{CAFiles: []string{filepath.Join(dir, "ca.pem")}, CRLFiles: []string{filepath.Join(dir, "ca.crl")}}
	_ = clients.Load() // and in the background: clients.Run(ctx)
	h := &l4.TerminateTLS{
		Config: clients.Config(&tls.Config{Certificates: []tls.Certificate{ca.Issue("a.test")}}),
		Next: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			_, err := fmt.Fprint(c, "hello, ", c.(*l4.Conn).TLS().VerifiedChains[0][0].Subject.CommonName)
			return err
		}),
	}
	for _, cert := range []tls.Certificate{ann, eve} {
		client, server := l4test.Pipe()
		served := make(chan error)
		go func() { served <- h.ServeConn(context.Background(), server) }()
		c := tls.Client(client, &tls.Config{ServerName: "a.test", RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}})
		b, _ := io.ReadAll(c)
		fmt.Printf("%q", b)
		c.Close()
		if e := l4.ClientCertErrorOf(<-served); e != nil {
			fmt.Print(" ", e.Cert.Subject, " is refused")
		}
		fmt.Println()
	}
	// Output:
	// "hello, ann"
	// "" CN=eve is refused
}
