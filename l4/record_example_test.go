// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A log in JSON, a line for each connection. Times are in nanoseconds.
func ExampleLogTo() {
	lines := slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if groups == nil && a.Key == slog.TimeKey {
			return slog.Attr{} // this example's output must be the same each time
		}
		return a
	}})
	s := &l4.Server{Handler: &l4.Proxy{}, OnDone: l4.LogTo(slog.New(lines))}

	s.OnDone(&l4.Record{
		Remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000}, Local: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 5432},
		Server: "db-1", Tries: 1, BytesIn: 1547, BytesOut: 1914, ToServer: 12, FromServer: 80, Total: 3 * time.Millisecond,
	})
	// Output:
	// {"level":"INFO","msg":"connection","connection":{"remote":"192.0.2.7:40000","local":"198.51.100.1:5432","server":"db-1","tries":1,"in":1547,"out":1914,"to_server":12,"from_server":80,"assigned":0,"connected":0,"first_byte":0,"total":3000000,"end":"--"}}
}
