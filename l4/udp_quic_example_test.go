// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"fmt"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// QUIC without a key: HTTP/3 sites by name, DNS over QUIC beside them, and the rest. The
// servers write which one they are into their connection ids, two bytes after the first, so
// that clients which migrate stay where they are.
func ExampleQUIC() {
	a, resolvers, rest := &balance.Pool{Name: "a"}, &balance.Pool{Name: "resolvers"}, &balance.Pool{Name: "rest"}
	proxy := &l4.UDPProxy{
		Pool: rest,
		QUIC: &l4.QUIC{
			Routes: []l4.QUICRoute{
				{Match: l4.SNI("a.test", "*.a.test"), Pool: a},
				{Match: l4.ALPN("doq"), Pool: resolvers},
				{Match: l4.SNI("")}, // without a name: dropped
			},
			ServerOf: func(id []byte) string {
				if len(id) < 3 {
					return ""
				}
				return fmt.Sprintf("server-%d", int(id[1])<<8|int(id[2]))
			},
		},
	}
	fmt.Println(proxy.Check())
	// Output: <nil>
}
