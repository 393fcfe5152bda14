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

func ExampleAttach() {
	n := l4test.NewNetwork()
	home := new(l4.Attach)
	pool := new(balance.Pool)
	pool.Set(balance.Endpoint{Addr: "behind-nat:1"}) // not dialled
	for addr, h := range map[string]l4.Handler{
		"10.0.0.1:99": home, // servers connect here
		"10.0.0.1:80": &l4.Proxy{Pool: pool, Dial: home.DialContext},
	} {
		ln, _ := n.Listen("tcp", addr)
		s := &l4.Server{Handler: h}
		go s.Serve(ln)
		defer s.Close()
	}
	work, _ := n.DialContext(context.Background(), "tcp", "10.0.0.1:99")
	go func(c net.Conn) { // the server: waits to be given a client
		defer c.Close()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "hello %s", b)
	}(work)

	client, _ := n.DialContext(context.Background(), "tcp", "10.0.0.1:80")
	io.WriteString(client, "client")
	client.(*l4test.Conn).CloseWrite()
	b, _ := io.ReadAll(client)
	fmt.Println(string(b))
	// Output: hello client
}
