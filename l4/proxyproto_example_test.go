// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleAcceptProxy() {
	h := &l4.AcceptProxy{
		Trusted: l4.MustParsePrefixes("192.0.2.0/24"), // the load balancer of the cloud
		Next: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			authority, _ := l4.ProxyHeaderOf(c).TLV(l4.TLVAuthority)
			fmt.Printf("%v asks for %s\n", c.RemoteAddr(), authority)
			return nil
		}),
	}
	lb, us := l4test.Pipe() // from 192.0.2.1
	header, _ := (&l4.ProxyHeader{
		Source:      &net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 51234},
		Destination: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 443},
		TLVs:        []l4.TLV{{l4.TLVAuthority, []byte("a.test")}, {Type: l4.TLVCRC32C}},
	}).AppendBinary(nil)
	lb.Write(header)
	fmt.Println(h.ServeConn(context.Background(), us))
	// Output:
	// 203.0.113.9:51234 asks for a.test
	// <nil>
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
	proxy := &l4.Proxy{Pool: pool, Dial: n.DialContext, Handshake: (&l4.SendProxy{Version: 1}).Handshake}
	client, server := l4test.Pipe()
	go proxy.ServeConn(context.Background(), server)
	io.WriteString(client, "hello")
	client.CloseWrite()
	b, err := io.ReadAll(client)
	fmt.Println(string(b), err)
	// Output: "PROXY TCP4 192.0.2.1 192.0.2.2 49152 80\r\nhello" <nil>
}

func ExampleParseProxyHeader() {
	wire := []byte("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\nSSH-2.0-OpenSSH_9.2\r\n")
	h, n, err := l4.ParseProxyHeader(wire)
	fmt.Println(h.Source, h.Destination, err)
	fmt.Printf("%q\n", wire[n:])
	// Output:
	// 192.0.2.7:51234 198.51.100.1:443 <nil>
	// "SSH-2.0-OpenSSH_9.2\r\n"
}

func ExampleProxyHeader_AppendBinary() {
	h := l4.ProxyHeader{
		Version:     1,
		Source:      &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 51234},
		Destination: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 443},
	}
	b, err := h.AppendBinary(nil)
	fmt.Printf("%q %v\n", b, err)
	// Output: "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n" <nil>
}
