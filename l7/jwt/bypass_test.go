// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// Whatever form a request comes in, a token decides, and what servers are told of the
// user is the token's word.
func TestNoWayAround(t *testing.T) {
	for _, tt := range []struct {
		name    string
		make    func(*Verify)
		carries func(token string) []string // fields that have it
	}{
		{"Authorization", func(*Verify) {}, bearerOf},
		{"field", func(h *Verify) { h.Header = "X-Token" }, func(token string) []string { return []string{"X-Token", token} }},
		{"cookie", func(h *Verify) { h.Cookie = "token" }, func(token string) []string { return []string{"Cookie", "a=b; token=" + token} }},
		{"query or field", func(h *Verify) { h.Query, h.Header = "access_token", "Authorization" }, bearerOf},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { noWayAround(t, tt.make, tt.carries) })
		})
	}
}

func noWayAround(t *testing.T, made func(*Verify), carries func(token string) []string) {
	i, other := newIssuer(t), newIssuer(t)
	type arrival struct {
		what string
		user []string
	}
	var passed []arrival
	h := i.verifier()
	made(h)
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
	http2 := &http.Transport{DialContext: n.DialContext, Protocols: new(http.Protocols), DisableCompression: true}
	http2.Protocols.SetUnencryptedHTTP2(true)
	try := func(b l7test.Bypass) {
		c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		_, _ = b.HTTP1(c, "10.0.0.1")
		if r, ok := b.Request("10.0.0.1"); ok {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if resp, err := http2.RoundTrip(r.WithContext(ctx)); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
		synctest.Wait()
	}
	good := i.token()
	twice := append(carries(good), carries(good)...)
	name := carries("")[0]
	for _, fields := range [][]string{
		nil, {"Authorization", "Bearer"}, {"Authorization", "Bearer "}, carries(other.token()), carries(good + " x"), carries(good + ".x"),
		twice, {"Authorization", good}, {name + "_", carries(good)[1]}, {strings.ReplaceAll(name, "-", "_") + "_", carries(good)[1]},
		{"Cookie", "access_token=" + good}, {"Authorization", "Basic " + good}, {"Proxy-Authorization", "Bearer " + good}, {"Set-Cookie", "token=" + good},
		{"Cookie", "Token=" + good}, {"Cookie", "token=" + good, "Cookie", "token="}, {"Cookie", `token="` + good + `"`},
	} {
		for _, b := range l7test.Bypasses("/admin", "X-User", fields...) {
			try(b)
			require.Empty(t, passed, "%s with %q", b.Name, fields)
		}
	}
	for _, b := range l7test.Bypasses("/admin", "X-User", carries(good)...) {
		try(b)
	}
	require.Greater(t, len(passed), 80)
	for _, a := range passed {
		require.Equal(t, []string{"ann"}, a.user, a.what)
	}
	http2.CloseIdleConnections()
	require.NoError(t, srv.Shutdown(t.Context()))
	<-done
}
