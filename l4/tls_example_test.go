// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// exampleCertificate is a self-signed certificate for name.
func exampleCertificate(name string) tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func ExampleCertificates() {
	certs := &Certificates{Strict: true}
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
	certs.Set(exampleCertificate("a.test"), exampleCertificate("*.a.test"))
	show("a.test")
	show("b.a.test")
	show("c.test")
	certs.Set(exampleCertificate("c.test")) // all at once, while it serves
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
	certs := new(Certificates)
	certs.Set(exampleCertificate("a.test"))
	h := &TerminateTLS{
		Config: &tls.Config{GetCertificate: certs.Get},
		Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			b, err := io.ReadAll(c)
			fmt.Printf("%s, in the clear, for %s\n", b, c.(*Conn).TLS().ServerName)
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
	origin := tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{exampleCertificate("a.test")}})
	go func() {
		c, _ := origin.Accept()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "the server reads %q over TLS", b)
		c.Close()
	}()

	pool := new(balance.Pool)
	pool.Set(balance.Endpoint{Addr: "10.0.0.1:443"})
	proxy := &Proxy{
		Pool: pool, Dial: n.DialContext,
		Handshake: (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake,
	}
	client, server := l4test.Pipe()
	go proxy.ServeConn(context.Background(), server)
	io.WriteString(client, "hello")
	client.CloseWrite()
	b, err := io.ReadAll(client)
	fmt.Println(string(b), err)
	// Output: the server reads "hello" over TLS <nil>
}

func ExampleSendProxy() {
	n := l4test.NewNetwork()
	ln, _ := n.Listen("tcp", "10.0.0.1:80")
	defer ln.Close()
	go func() {
		c, _ := ln.Accept()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%q", b)
		c.Close()
	}()

	pool := new(balance.Pool)
	pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"})
	proxy := &Proxy{Pool: pool, Dial: n.DialContext, Handshake: (&SendProxy{Version: 1}).Handshake}
	client, server := l4test.Pipe()
	go proxy.ServeConn(context.Background(), server)
	io.WriteString(client, "hello")
	client.CloseWrite()
	b, err := io.ReadAll(client)
	fmt.Println(string(b), err)
	// Output: "PROXY TCP4 192.0.2.1 192.0.2.2 49152 80\r\nhello" <nil>
}

// Two gateways that share nothing but a secret resume each other's sessions.
func ExampleTicketKeys() {
	secret := make([]byte, 32)
	rand.Read(secret) // in life it comes from a secret store, the same for all gateways
	gateway := func() *tls.Config {
		tickets := &TicketKeys{Keys: [][]byte{secret}}
		return &tls.Config{
			Certificates: []tls.Certificate{exampleCertificate("a.test")},
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
