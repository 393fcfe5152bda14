// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
)

// dialedBy gives a handler of To the network of the site.
func (s *site) dialedBy(h Handler) Handler {
	s.Helper()
	t, ok := h.(*forwarder)
	require.True(s, ok)
	require.NoError(s, t.bad)
	p, ok := t.to.Next.(*Proxy)
	require.True(s, ok)
	p.Upstream.Dial = s.net.DialContext
	s.Cleanup(p.Upstream.CloseIdle)
	return h
}

func TestToForwards(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", echo)
		s.origin("10.0.1.2:8080", echo)
		return NewRouter(
			Route{Match: PathPrefix("/one"), Handler: s.dialedBy(To("http://10.0.1.1"))},
			Route{Match: PathPrefix("/base"), Handler: s.dialedBy(To("http://10.0.1.2:8080/in%2fner/"))},
			Route{Match: PathPrefix("/several"), Handler: s.dialedBy(To("http://10.0.1.1/x", "http://10.0.1.2:8080/x"))},
		)
	}, func(s *site) {
		require.Equal(s, "GET /one?q 10.0.1.1\n", s.get("/one?q").body)
		require.Equal(s, "GET /in%2fner/base/a%2fb 10.0.1.2:8080\n", s.get("/base/a%2fb").body)
		require.Equal(s, "GET /x/several a.test\n", s.get("/several", "Host", "a.test").body)
	})
}

// To verifies the certificate of an https server under the name in the URL.
func TestToSpeaksTLS(t *testing.T) {
	h, ok := To("https://a.example/base", "https://b.example:8443/base").(*forwarder)
	require.True(t, ok)
	p, ok := h.to.Next.(*Proxy)
	require.True(t, ok)
	addrs := map[string]string{}
	for s := range p.Pool.All() {
		addrs[s.Name()] = s.Addr()
		cfg := p.Upstream.TLS(s)
		require.NotNil(t, cfg)
		require.False(t, cfg.InsecureSkipVerify)
	}
	require.Equal(t, map[string]string{"a.example": "a.example:443", "b.example:8443": "b.example:8443"}, addrs)
	h, ok = To("http://a.example").(*forwarder)
	require.True(t, ok)
	p, ok = h.to.Next.(*Proxy)
	require.True(t, ok)
	require.Nil(t, p.Upstream.TLS)
}

// What is wrong with the URLs is found before anything is served.
func TestToChecksItsURLs(t *testing.T) {
	for _, urls := range [][]string{
		{}, {""}, {"a.example"}, {"//a.example"}, {"ftp://a.example"}, {"http://"}, {"http://:80"}, {"http://a.example/?q"}, {"http://a.example/#f"},
		{"http://u@a.example"}, {"http://a.example/a b\x00"}, {"http://a.example", "https://a.example"}, {"http://a.example/a", "http://b.example/b"},
		{"http://a.example", "http://a.example"}, {"http://a.example", "%"},
	} {
		h := To(urls...)
		err := checkAll(&Server{Handler: h})
		require.Error(t, err, "%q", urls)
		if ce, ok := errors.AsType[*penstock.ConfigError](err); ok {
			require.Contains(t, ce.Field, "Server.Handler", "%q", urls)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		s.serve(&Server{Handler: NewRouter(Route{Match: Path("/"), Handler: HandlerFunc(func(x *Exchange) { Serve(To("ftp://a.example"), x) })})})
		require.Equal(t, 500, s.get("/").StatusCode)
	})
}
