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

// shout answers what it is sent, louder.
func shout(ctx context.Context, c net.Conn) error {
	defer c.Close()
	text, _ := io.ReadAll(c)
	_, err := fmt.Fprintf(c, "%s!", text)
	return err
}

// A proxy before one server that is there and one that is not, on a network
// in memory. On real sockets Dial stays nil and the listener is net.Listen's.
func Example() {
	n := l4test.NewNetwork()
	back, _ := n.Listen("tcp", "10.0.1.1:7")
	server := &l4.Server{Handler: l4.HandlerFunc(shout)}
	go server.Serve(back)

	pool := &balance.Pool{Policy: balance.First{}}
	pool.Set(balance.Endpoint{Addr: "10.0.1.9:7"}, balance.Endpoint{Addr: "10.0.1.1:7"})
	records := make(chan l4.Record, 1)
	proxy := &l4.Server{
		Handler: &l4.Proxy{Pool: pool, Dial: n.DialContext},
		OnDone:  func(r *l4.Record) { records <- *r },
	}
	front, _ := n.Listen("tcp", "10.0.0.1:7")
	go proxy.Serve(front)

	c, _ := n.DialContext(context.Background(), "tcp", "10.0.0.1:7")
	io.WriteString(c, "hello")
	c.(*l4test.Conn).CloseWrite()
	answer, _ := io.ReadAll(c)
	fmt.Println(string(answer))
	c.Close()
	r := <-records
	fmt.Println(r.Server, "tries:", r.Tries, "in:", r.BytesIn, "out:", r.BytesOut, "end:", r.Termination)

	proxy.Shutdown(context.Background())
	server.Shutdown(context.Background())
	// Output:
	// hello!
	// 10.0.1.1:7 tries: 2 in: 5 out: 6 end: --
}

// A connection that looks ahead: nothing is lost for who reads next.
func ExampleConn_Peek() {
	client, server := l4test.Pipe()
	go io.WriteString(client, "GET / HTTP/1.1\r\n")
	c := l4.NewConn(server)
	method, _ := c.Peek(3)
	fmt.Printf("%s\n", method)
	line := make([]byte, 14)
	io.ReadFull(c, line)
	fmt.Printf("%s\n", line)
	// Output:
	// GET
	// GET / HTTP/1.1
}
