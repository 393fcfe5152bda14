// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// Whatever form a request comes in, a token decides, and what servers are told of the
// user is the token's word.
func TestNoWayAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, other := newIssuer(t), newIssuer(t)
		type arrival struct {
			what string
			user []string
		}
		var passed []arrival
		h := i.verifier()
		h.ToRequest = []ToField{{"sub", "X-User"}}
		h.Next = l7.HandlerFunc(func(x *l7.Exchange) {
			a := arrival{what: x.Method + " " + x.Path}
			for n, v := range x.Header.All() {
				if strings.EqualFold(strings.ReplaceAll(n, "_", "-"), "X-User") {
					a.user = append(a.user, v)
				}
			}
			passed = append(passed, a)
			x.Respond(204, nil, "")
		})
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		srv := &l7.Server{Handler: h}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		try := func(b l7test.Bypass) {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			_, _ = b.HTTP1(c, "10.0.0.1")
		}
		good := i.token()
		for _, fields := range [][]string{
			nil, {"Authorization", "Bearer"}, {"Authorization", "Bearer "}, {"Authorization", "Bearer " + other.token()}, {"Authorization", "Bearer " + good + " x"},
			{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, {"Authorization", good}, {"Authorization_", "Bearer " + good},
			{"Cookie", "access_token=" + good}, {"Authorization", "Bearer " + good + ".x"}, {"Authorization", "Basic " + good},
		} {
			for _, b := range l7test.Bypasses("/admin", "X-User", fields...) {
				try(b)
				require.Empty(t, passed, "%s with %q", b.Name, fields)
			}
		}
		for _, b := range l7test.Bypasses("/admin", "X-User", bearerOf(good)...) {
			try(b)
		}
		require.Greater(t, len(passed), 40)
		for _, a := range passed {
			require.Equal(t, []string{"ann"}, a.user, a.what)
		}
		require.NoError(t, srv.Shutdown(t.Context()))
		<-done
	})
}
