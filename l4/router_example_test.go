// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleRouter() {
	say := func(s string) l4.Handler {
		return l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			b, err := io.ReadAll(c)
			fmt.Printf("%s reads %q\n", s, b)
			return err
		})
	}
	r := &l4.Router{
		Routes: []l4.Route{
			{Match: l4.SNI("www.example.com"), Handler: say("web")},
			{Match: l4.SSH, Handler: say("bastion")},
		},
		Default: say("mail"),
		Silence: 10 * time.Millisecond,
	}
	client, server := l4test.Pipe()
	io.WriteString(client, "SSH-2.0-client\r\n")
	client.CloseWrite()
	fmt.Println(r.ServeConn(context.Background(), server))
	// Output:
	// bastion reads "SSH-2.0-client\r\n"
	// <nil>
}

func ExampleListener() {
	web := new(l4.Listener)
	go http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello from ", r.URL.Path) }))
	defer web.Close()
	router := &l4.Router{Routes: []l4.Route{{Match: l4.HTTP1, Handler: web}}}

	client, server := l4test.Pipe()
	defer client.Close()
	go router.ServeConn(context.Background(), server)
	fmt.Fprint(client, "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	b, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s: %s\n", resp.Status, b)
	// Output: 200 OK: hello from /a
}

func ExamplePrefixes() {
	denied := l4.MustParsePrefixes("203.0.113.0/24", "2001:db8::/32", "192.0.2.7")
	fmt.Println(denied.Contains(netip.MustParseAddr("203.0.113.9")), denied.Contains(netip.MustParseAddr("::ffff:192.0.2.7")))
	h := &l4.Router{
		Routes: []l4.Route{
			{Match: l4.RemoteIn(denied), Handler: l4.Reject{}},
			{Match: l4.Not(l4.LocalPorts(5432, 5433)), Handler: &l4.Tarpit{}},
		},
		Default: &l4.Proxy{},
	}
	fmt.Println(len(h.Routes), "rules, tried in order")
	// Output:
	// true true
	// 2 rules, tried in order
}

func ExampleRDPCookie() {
	request := "\x03\x00\x00\x21\x1c\xe0\x00\x00\x00\x00\x00Cookie: mstshash=ann\r\n"
	fmt.Println(l4.RDPCookie([]byte(request)))
	// A Proxy can hash by what a Router has read ahead.
	_ = &l4.Proxy{Key: func(client net.Conn) uint64 {
		_, user, _ := l4.RDPCookie(client.(*l4.Conn).Buffered())
		return balance.Hash(user)
	}}
	// Output: mstshash ann yes
}
