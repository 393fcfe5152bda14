// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleCertificates() {
	certs := &l4.Certificates{Strict: true}
	config := &tls.Config{GetCertificate: certs.Get}
	show := func(name string) {
		client, server := l4test.Pipe()
		defer client.Close()
		go tls.Server(server, config).Handshake()
		c := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			fmt.Println(name, "is refused")
			return
		}
		fmt.Println(name, "is shown", c.ConnectionState().PeerCertificates[0].DNSNames)
	}
	certs.Set(l4test.NewAuthority("authority").Issue("a.test"), l4test.NewAuthority("authority").Issue("*.a.test"))
	show("a.test")
	show("b.a.test")
	show("c.test")
	certs.Set(l4test.NewAuthority("authority").Issue("c.test")) // all at once, while it serves
	show("c.test")
	show("a.test")
	// Output:
	// a.test is shown [a.test]
	// b.a.test is shown [*.a.test]
	// c.test is refused
	// c.test is shown [c.test]
	// a.test is refused
}

func ExampleTerminateTLS() {
	certs := new(l4.Certificates)
	certs.Set(l4test.NewAuthority("authority").Issue("a.test"))
	h := &l4.TerminateTLS{
		Config: &tls.Config{GetCertificate: certs.Get},
		Next: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			b, err := io.ReadAll(c)
			fmt.Printf("%s, in the clear, for %s\n", b, c.(*l4.Conn).TLS().ServerName)
			return err
		}),
	}
	client, server := l4test.Pipe()
	go func() {
		c := tls.Client(client, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
		io.WriteString(c, "hello")
		c.Close()
	}()
	fmt.Println(h.ServeConn(context.Background(), server))
	// Output:
	// hello, in the clear, for a.test
	// <nil>
}

func ExampleOriginateTLS() {
	n := l4test.NewNetwork()
	ln, _ := n.Listen("tcp", "10.0.0.1:443")
	defer ln.Close()
	origin := tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{l4test.NewAuthority("authority").Issue("a.test")}})
	go func() {
		c, _ := origin.Accept()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "the server reads %q over TLS", b)
		c.Close()
	}()

	pool := new(balance.Pool)
	pool.Set(balance.Endpoint{Addr: "10.0.0.1:443"})
	proxy := &l4.Proxy{
		Pool: pool, Dial: n.DialContext,
		Handshake: (&l4.OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake,
	}
	client, server := l4test.Pipe()
	go proxy.ServeConn(context.Background(), server)
	io.WriteString(client, "hello")
	client.CloseWrite()
	b, err := io.ReadAll(client)
	fmt.Println(string(b), err)
	// Output: the server reads "hello" over TLS <nil>
}

// mTLS to servers, with a client certificate in files: the next connection shows the new one.
func ExampleCertificates_GetClient() {
	certs := new(l4.Certificates)
	files := &l4.CertificateFiles{Pairs: []l4.KeyPair{{CertFile: "gateway.crt", KeyFile: "gateway.key"}}, Certificates: certs}
	// files.Load() before it serves, and go files.Run(ctx) while it does
	config := &tls.Config{RootCAs: l4test.NewAuthority("authority").Pool(), GetClientCertificate: certs.GetClient}
	proxy := &l4.Proxy{Pool: new(balance.Pool), Handshake: (&l4.OriginateTLS{Config: config}).Handshake}
	// in l7: &l7.Upstream{TLS: func(*balance.Server) *tls.Config { return config }}
	fmt.Println(files.Check(), proxy.Check())
	// Output: <nil> <nil>
}

// Two gateways that share nothing but a secret resume each other's sessions.
func ExampleTicketKeys() {
	secret := make([]byte, 32)
	rand.Read(secret) // in life it comes from a secret store, the same for all gateways
	gateway := func() *tls.Config {
		tickets := &l4.TicketKeys{Keys: [][]byte{secret}}
		return &tls.Config{
			Certificates: []tls.Certificate{l4test.NewAuthority("authority").Issue("a.test")},
			WrapSession:  tickets.Wrap, UnwrapSession: tickets.Unwrap,
		}
	}
	sessions := tls.NewLRUClientSessionCache(0)
	for range 2 {
		client, server := l4test.Pipe()
		go func() {
			s := tls.Server(server, gateway())
			s.Handshake()
			s.Close()
		}()
		c := tls.Client(client, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, ClientSessionCache: sessions})
		io.ReadAll(c)
		fmt.Println("resumed:", c.ConnectionState().DidResume)
		c.Close()
	}
	// Output:
	// resumed: false
	// resumed: true
}
