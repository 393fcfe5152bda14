// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// get returns an exchange for matchers to look at.
func get(host, path string, fields ...string) *Exchange {
	x := &Exchange{Method: "GET", Scheme: "http", Host: host, Path: path, Header: MakeFields(fields...)}
	for i := range path {
		if path[i] == '?' {
			x.Path, x.Query = path[:i], path[i:]
			break
		}
	}
	return x
}

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestMatchers(t *testing.T) {
	odd := func(v string) bool { return len(v)%2 == 1 }
	tests := []struct {
		m   Matcher
		yes []*Exchange
		no  []*Exchange
	}{
		{Host("Example.com"),
			[]*Exchange{get("example.com", "/"), get("EXAMPLE.com:8080", "/"), get("example.com.", "/"), get("example.com.:80", "/")},
			[]*Exchange{get("a.example.com", "/"), get("example.co", "/"), get("", "/")}},
		{Host("*.example.com"),
			[]*Exchange{get("a.example.com", "/"), get("b.a.Example.com:1", "/")},
			[]*Exchange{get("example.com", "/"), get(".example.com", "/"), get("aexample.com", "/")}},
		{Host("*"), []*Exchange{get("anything", "/")}, nil},
		{Host("[2001:db8::1]"), []*Exchange{get("[2001:DB8::1]:80", "/"), get("[2001:db8::1]", "/")}, []*Exchange{get("[2001:db8::2]", "/")}},
		{HostRegexp{regexp.MustCompile(`^shop-\d+\.example$`)},
			[]*Exchange{get("shop-17.example", "/"), get("SHOP-1.example:80", "/")}, []*Exchange{get("shop-x.example", "/")}},
		{Path("/a"), []*Exchange{get("", "/a"), get("", "/a?b")}, []*Exchange{get("", "/a/"), get("", "/A"), get("", "/%61")}},
		{PathPrefix("/api/"), []*Exchange{get("", "/api"), get("", "/api/"), get("", "/api/v1")}, []*Exchange{get("", "/apiary"), get("", "/ap")}},
		{PathPrefix("/"), []*Exchange{get("", "/"), get("", "/x"), get("", "*")}, nil},
		{PathSuffix(".png"), []*Exchange{get("", "/a/b.png?x=1")}, []*Exchange{get("", "/a.PNG")}},
		{PathRegexp{regexp.MustCompile(`^/v\d+/`)}, []*Exchange{get("", "/v12/x")}, []*Exchange{get("", "/vx/")}},
		{PathPattern("/users/{id}/files/{rest...}"),
			[]*Exchange{get("", "/users/7/files/a/b"), get("", "/users/7/files/")},
			[]*Exchange{get("", "/users//files/a"), get("", "/users/7/file/a"), get("", "/users/7/files")}},
		{PathPattern("/a/"), []*Exchange{get("", "/a/")}, []*Exchange{get("", "/a"), get("", "/a/b")}},
		{Method("GET"), []*Exchange{get("", "/")}, []*Exchange{{Method: "get"}}},
		{Scheme("http"), []*Exchange{get("", "/")}, []*Exchange{{Scheme: "https"}}},
		{Header{Name: "x-env", Value: "test"},
			[]*Exchange{get("", "/", "X-Env", "test"), get("", "/", "X-Env", "prod", "x-ENV", "test")},
			[]*Exchange{get("", "/", "X-Env", "Test"), get("", "/", "X-Env", "a, test"), get("", "/")}},
		{Header{Name: "X-Env"}, []*Exchange{get("", "/", "x-env", "")}, []*Exchange{get("", "/")}},
		{Header{Name: "Accept", Value: "text/html", Items: true},
			[]*Exchange{get("", "/", "Accept", "a/b , text/html")}, []*Exchange{get("", "/", "Accept", "text/html;q=1")}},
		{Header{Name: "X", Test: odd}, []*Exchange{get("", "/", "X", "abc")}, []*Exchange{get("", "/", "X", "ab")}},
		{ContentType("application/json"),
			[]*Exchange{get("", "/", "Content-Type", "Application/JSON; charset=utf-8")}, []*Exchange{get("", "/", "Content-Type", "application/jsonp"), get("", "/")}},
		{ContentType("image/*"), []*Exchange{get("", "/", "Content-Type", "image/png")}, []*Exchange{get("", "/", "Content-Type", "video/mp4")}},
		{Cookie{Name: "beta", Value: "1"},
			[]*Exchange{get("", "/", "Cookie", "a=b; beta=1"), get("", "/", "Cookie", "a=b", "Cookie", "beta=1")},
			[]*Exchange{get("", "/", "Cookie", "xbeta=1"), get("", "/", "Cookie", "beta=2"), get("", "/", "Cookie", "Beta=1")}},
		{Query{Name: "q", Value: "a b"},
			[]*Exchange{get("", "/?x=1&q=a+b"), get("", "/?%71=a%20b")}, []*Exchange{get("", "/?q=a"), get("", "/?q=%zz"), get("", "/")}},
		{Query{Name: "flag"}, []*Exchange{get("", "/?flag"), get("", "/?flag=0")}, []*Exchange{get("", "/?flags")}},
		{RemoteIn(prefixes("10.0.0.0/8", "2001:db8::/32")),
			[]*Exchange{{Remote: netip.MustParseAddrPort("10.1.2.3:9")}, {Remote: netip.MustParseAddrPort("[::ffff:10.0.0.1]:9")}, {Remote: netip.MustParseAddrPort("[2001:db8::1%eth0]:9")}},
			[]*Exchange{{Remote: netip.MustParseAddrPort("11.0.0.1:9")}, {}}},
		{ClientIn(prefixes("192.0.2.0/24")), []*Exchange{{Client: netip.MustParseAddr("192.0.2.7")}}, []*Exchange{{}}},
		{LocalIn(prefixes("192.0.2.0/24")), []*Exchange{{Local: netip.MustParseAddrPort("192.0.2.7:1")}}, []*Exchange{{}}},
		{LocalPort(443), []*Exchange{{Local: netip.MustParseAddrPort("192.0.2.7:443")}}, []*Exchange{{}}},
		{RemotePorts{1, 1023}, []*Exchange{{Remote: netip.MustParseAddrPort("192.0.2.7:22")}}, []*Exchange{{Remote: netip.MustParseAddrPort("192.0.2.7:1024")}, {}}},
		{SNI("*.example.com"), []*Exchange{{TLS: &tls.ConnectionState{ServerName: "A.example.com"}}}, []*Exchange{{TLS: &tls.ConnectionState{ServerName: "example.com"}}, {Host: "a.example.com"}}},
		{SNI("example.com"), []*Exchange{{TLS: &tls.ConnectionState{ServerName: "Example.com"}}}, []*Exchange{{TLS: &tls.ConnectionState{}}}},
		{JA4("t13d1516h2_8daaf6152771_b186095e22b6"), []*Exchange{{ja4: "t13d1516h2_8daaf6152771_b186095e22b6"}}, []*Exchange{{ja4: "t13d1516h2_8daaf6152771_000000000000"}, {}}},
		{ALPN("h2"), []*Exchange{{TLS: &tls.ConnectionState{NegotiatedProtocol: "h2"}}}, []*Exchange{{TLS: &tls.ConnectionState{}}, {}}},
		{TLS{Min: tls.VersionTLS13}, []*Exchange{{TLS: &tls.ConnectionState{Version: tls.VersionTLS13}}}, []*Exchange{{TLS: &tls.ConnectionState{Version: tls.VersionTLS12}}, {}}},
		{TLS{Max: tls.VersionTLS12}, []*Exchange{{TLS: &tls.ConnectionState{Version: tls.VersionTLS12}}}, []*Exchange{{TLS: &tls.ConnectionState{Version: tls.VersionTLS13}}}},
		{ClientCert{Subject: "robot", Issuer: "ca"}, []*Exchange{withCert("robot", "ca", true)}, []*Exchange{withCert("robot", "ca", false), withCert("man", "ca", true), withCert("robot", "other", true), {}}},
		{ClientCert{Unverified: true}, []*Exchange{withCert("robot", "ca", false)}, []*Exchange{{TLS: &tls.ConnectionState{}}}},
		{All{Method("GET"), Path("/a")}, []*Exchange{get("", "/a")}, []*Exchange{get("", "/b")}},
		{All{}, []*Exchange{{}}, nil},
		{Any{Path("/a"), Path("/b")}, []*Exchange{get("", "/a"), get("", "/b")}, []*Exchange{get("", "/c")}},
		{Any{}, nil, []*Exchange{{}}},
		{Not(Path("/a")), []*Exchange{get("", "/b")}, []*Exchange{get("", "/a")}},
		{MatchFunc(func(x *Exchange) bool { return x.ContentLength > 5 }), []*Exchange{{ContentLength: 6}}, []*Exchange{{}}},
	}
	for _, tt := range tests {
		t.Run(describe(tt.m), func(t *testing.T) {
			require.Empty(t, problem(tt.m, 0))
			for _, x := range tt.yes {
				require.True(t, tt.m.Match(x), "%+v", x)
			}
			for _, x := range tt.no {
				require.False(t, tt.m.Match(x), "%+v", x)
			}
		})
	}
}

func withCert(subject, issuer string, verified bool) *Exchange {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: subject}, Issuer: pkix.Name{CommonName: issuer}}
	cs := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
	if verified {
		cs.VerifiedChains = [][]*x509.Certificate{{c}}
	}
	return &Exchange{TLS: cs}
}

func TestMatchersDoNotAllocate(t *testing.T) {
	x := get("a.example.com:80", "/users/7/x?b=1&c=2", "Cookie", "a=b; c=d", "Accept", "x, y", "Content-Type", "a/b")
	x.Remote = netip.MustParseAddrPort("10.1.2.3:80")
	x.TLS = &tls.ConnectionState{ServerName: "a.example.com"}
	for _, m := range []Matcher{
		Host("*.example.com"), PathPrefix("/users"), PathPattern("/users/{id}/x"), Header{Name: "Accept", Value: "y", Items: true},
		Cookie{Name: "c", Value: "d"}, Query{Name: "c", Value: "2"}, RemoteIn(prefixes("10.0.0.0/8")), SNI("*.example.com"), ContentType("a/*"),
	} {
		require.True(t, m.Match(x), describe(m))
		require.Zero(t, testing.AllocsPerRun(100, func() { m.Match(x) }), describe(m))
	}
}
