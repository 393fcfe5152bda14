// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

func ExampleLogTo() {
	srv := &l7.Server{
		Handler: &l7.RequestID{Next: &l7.FixedReply{Body: "hello"}},
		OnDone:  l7.LogTo(slog.New(slog.NewTextHandler(os.Stderr, nil))), // a line for each request
	}
	fmt.Println(srv.Close())
	// Output: <nil>
}

// An access log in JSON, a line for each request. Times are in nanoseconds, bytes in
// both directions are those of bodies.
func ExampleLogTo_json() {
	lines := slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if groups == nil && a.Key == slog.TimeKey {
			return slog.Attr{} // this example's output must be the same each time
		}
		return a
	}})
	gateway := &l7.Server{Handler: &l7.Router{}, OnDone: l7.LogTo(slog.New(lines))}

	gateway.OnDone(&l7.Record{
		Method: "GET", Host: "shop.example", Path: "/cart", Status: 200, Remote: netip.MustParseAddrPort("192.0.2.7:40000"),
		Front: l7.FrontHTTP2, Route: "shop", Pool: "web", Server: "web-1", Tries: 1, BytesOut: 512, Total: 3 * time.Millisecond,
		Captured: []l7.Captured{{Name: "User-Agent", Value: "a \"b\""}},
	})
	// Output:
	// {"level":"INFO","msg":"request","request":{"method":"GET","host":"shop.example","path":"/cart","status":200,"remote":"192.0.2.7:40000","route":"shop","pool":"web","server":"web-1","tries":1,"in":0,"out":512,"assigned":0,"connected":0,"first_byte":0,"total":3000000,"end":"--","front":"http2","request.User-Agent":"a \"b\""}}
}
