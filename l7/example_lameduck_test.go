// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// An l4.Server takes all connections of a port, and passes those that speak HTTP on
// to an l7.Server. The two are shut down in any order, or at once.
func ExampleServer_behindL4() {
	local := new(l4.Listener) // the way from one to the other
	web := &l7.Server{Handler: &l7.FixedReply{Body: "hello"}, LameDuck: 10 * time.Millisecond}
	port := &l4.Server{
		Handler:  &l4.Router{Routes: []l4.Route{{Match: l4.HTTP1, Handler: local}}},
		LameDuck: 10 * time.Millisecond,
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan error, 2)
	go func() { ended <- port.Serve(ln) }()
	go func() { ended <- web.Serve(local) }()

	res, err := http.Get("http://" + ln.Addr().String() + "/hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	fmt.Println(res.Status)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(port.Shutdown(ctx), web.Shutdown(ctx)) // the client's idle connection holds up neither
	<-ended
	<-ended
	// Output:
	// 200 OK
	// <nil> <nil>
}
