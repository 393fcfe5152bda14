// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// Many databases on one port: TLS ends here, and the name that a client asks for says
// which one it gets.
func ExampleAcceptPostgreSQL() {
	n := l4test.NewNetwork()
	database := func(addr, greeting string) *l4.Proxy {
		ln, _ := n.Listen("tcp", addr)
		go func() {
			c, _ := ln.Accept()
			io.WriteString(c, greeting)
			c.Close()
		}()
		pool := new(balance.Pool)
		pool.Set(balance.Endpoint{Addr: addr})
		return &l4.Proxy{Pool: pool, Dial: n.DialContext}
	}
	certs := new(l4.Certificates)
	certs.Set(l4test.NewAuthority("authority").Issue("*.db.test"))
	h := &l4.AcceptPostgreSQL{Next: &l4.TerminateTLS{
		Config: &tls.Config{GetCertificate: certs.Get, NextProtos: []string{"postgresql"}},
		Next: &l4.Router{Routes: []l4.Route{
			{Match: l4.SNI("orders.db.test"), Handler: database("10.0.0.1:5432", "these are the orders")},
			{Match: l4.SNI("users.db.test"), Handler: database("10.0.0.2:5432", "these are the users")},
		}},
	}}

	connect := func() net.Conn {
		client, server := l4test.Pipe()
		go h.ServeConn(context.Background(), server)
		return client
	}
	c := connect()
	io.WriteString(c, "\x00\x00\x00\x08\x04\xd2\x16\x2f") // SSLRequest, by psql sslmode=require
	answer := make([]byte, 1)
	io.ReadFull(c, answer)
	fmt.Printf("%s\n", answer)
	t := tls.Client(c, &tls.Config{ServerName: "users.db.test", InsecureSkipVerify: true})
	b, _ := io.ReadAll(t)
	fmt.Printf("%s\n", b)

	// sslnegotiation=direct, since PostgreSQL 17
	t = tls.Client(connect(), &tls.Config{ServerName: "orders.db.test", InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
	b, _ = io.ReadAll(t)
	fmt.Printf("%s\n", b)
	// Output:
	// S
	// these are the users
	// these are the orders
}
