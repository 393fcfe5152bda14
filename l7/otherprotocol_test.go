// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A server that speaks another protocol than the Upstream expects is most often one whose
// setting is missing: the error names the setting.
func TestReplyOfAnotherProtocol(t *testing.T) {
	const (
		http2 = "malformed reply: not HTTP/1, but HTTP/2: Upstream.Protocols must allow that (UnencryptedHTTP2 alone for h2c)"
		tls   = "malformed reply: not HTTP/1, but TLS: Upstream.TLS must be set for this server"
	)
	for _, tt := range []struct{ name, says, want string }{
		{"grpc-go", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", http2},
		{"settings with a line end", "\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x0a\x00\x0d\x00\x00\x00\x0a", http2},
		{"no settings", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", http2},
		{"a SETTINGS frame of a stream", "\x00\x00\x06\x04\x00\x00\x00\x01\x00\x00\x05\x00\x00\x40\x00", "malformed reply: not HTTP/1"},
		{"alert: unexpected message", "\x15\x03\x01\x00\x02\x02\x0a", tls},
		{"alert: protocol version", "\x15\x03\x03\x00\x02\x02\x46", tls},
		{"SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", "malformed reply: not HTTP/1"},
		{"less than a frame", "\x00\x00\x00\x04", "malformed reply: unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler { return newProxy(n, "10.0.0.1:80") }
			fronts(t, site, func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				o.Scripts = []l7test.Script{{l7test.Send(tt.says), l7test.Close()}}
				status, _ := f.get(t, "/")
				require.Equal(t, 502, status)
				require.EqualError(t, f.last(t).Err, tt.want)
			})
		})
	}
}

// An error calls a route by its place, and by its name if it has one.
func TestErrorOfARouteWithoutAName(t *testing.T) {
	ok := &l7.FixedReply{}
	require.EqualError(t, new(l7.Router).Set(l7.Route{Handler: ok}, l7.Route{Match: l7.Path("/b"), Handler: ok}),
		"l7: route 1 is never reached: route 0 matches all that it does")
	require.ErrorContains(t, (&l7.Router{Order: l7.Specific}).Set(l7.Route{Match: l7.Path("/b"), Handler: ok}, l7.Route{Name: "b", Match: l7.Path("/b"), Handler: ok}),
		`l7: route 1 "b" is as specific as route 0, and a request can match both: give one a Priority`)
}
