// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"fmt"
	"io"
	"net/http"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// An http.Transport over a pool: each connection goes to the server that has
// the fewest.
func ExampleDialer() {
	n := l4test.NewNetwork()
	ln, _ := n.Listen("tcp", "10.0.1.1:80")
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello from "+r.Host) }))

	p := &balance.Pool{Policy: balance.LeastConn{}}
	p.Set(balance.Endpoint{Addr: "10.0.1.1:80"})
	d := &l4.Dialer{Pool: p, Dial: n.DialContext} // without Dial: real sockets
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	resp, err := client.Get("http://api.test/")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	ln.Close()
	// Output: hello from api.test
}
