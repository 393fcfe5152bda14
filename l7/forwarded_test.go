// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// M6: Forwarded says who sent and how; nodes may be names that tell nothing;
// what is not valid is not believed.
func TestM6_Forwarded(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			for _, v := range r.Header.Values("Forwarded") {
				_, _ = w.Write([]byte(v + "\n"))
			}
		})
		standard, own := s.proxy("10.1.0.1:80"), s.proxy("10.1.0.1:80")
		standard.Forward, own.Forward = ForwardStandard, ForwardNone
		hidden := SetForwarded{For: func(*Exchange) string { return "_client" }, By: func(x *Exchange) string { return x.Local.String() }, Proto: true}
		return NewRouter(
			Route{Match: Path("/own"), Handler: &EditHeader{Request: []FieldEdit{hidden}, Next: own}},
			Route{Match: Path("/behind"), Handler: &TrustForwarded{
				Prefixes: prefixes("10.9.9.0/24"), Standard: true,
				Next: &EditHeader{Request: []FieldEdit{hidden}, Next: own}}},
			Route{Handler: standard},
		)
	}, func(s *site) {
		require.Equal(s, "for=10.9.9.9;host=\"10.0.0.1\";proto=http\n", s.get("/", "Forwarded", "for=6.6.6.6").body)
		require.Equal(s, "for=\"_client\";by=\"10.0.0.1:80\";proto=http\n", s.get("/own", "Forwarded", "for=6.6.6.6").body)
		require.Equal(s, "for=1.2.3.4, for=\"_client\";by=\"10.0.0.1:80\";proto=http\n", s.get("/behind", "Forwarded", "for=1.2.3.4").body)
	})
	for in, want := range map[string]string{
		"1.2.3.4": "1.2.3.4", "::ffff:1.2.3.4": "1.2.3.4", "2001:db8::1": `"[2001:db8::1]"`, "[2001:db8::1]:80": `"[2001:db8::1]:80"`,
		"1.2.3.4:80": `"1.2.3.4:80"`, "_a.b-c": `"_a.b-c"`, "_": "unknown", "_a~": "unknown", `x"y`: "unknown", "": "unknown",
	} {
		require.Equal(t, want, forwardedNode(in), in)
	}
}

func TestM6_TrustStandard(t *testing.T) {
	ours := &TrustForwarded{Prefixes: prefixes("10.0.0.0/8"), Standard: true}
	for _, tt := range []struct {
		lines  []string
		client string
		scheme string
	}{
		{nil, "10.0.0.9", ""},
		{[]string{"for=1.2.3.4;proto=https"}, "1.2.3.4", "https"},
		{[]string{`For="[2001:db8::1]:4711"; Proto=HTTPS`}, "10.0.0.9", ""}, // a space behind the semicolon
		{[]string{`For="[2001:db8::1]:4711";Proto=HTTPS;ext=x;;`}, "2001:db8::1", "https"},
		{[]string{"for=6.6.6.6, for=1.2.3.4;proto=http , for=10.0.0.1"}, "1.2.3.4", "http"},
		{[]string{"for=6.6.6.6", `for="1.2.3.4:80"`}, "1.2.3.4", ""},
		{[]string{`for="1.2.3.4\:80"`}, "1.2.3.4", ""},
		{[]string{"for=1.2.3.4,for=_hidden, for=10.0.0.1"}, "10.0.0.1", ""},
		{[]string{"for=1.2.3.4,for=unknown"}, "10.0.0.9", ""},
		{[]string{"for=1.2.3.4;for=5.6.7.8"}, "10.0.0.9", ""},
		{[]string{"for=1.2.3.4;proto=http;proto=https"}, "10.0.0.9", ""},
		{[]string{"for=1.2.3.4;by=nobody"}, "10.0.0.9", ""},
		{[]string{`for=1.2.3.4;host="a/b"`}, "10.0.0.9", ""},
		{[]string{"for=2001:db8::1"}, "10.0.0.9", ""},
		{[]string{`for="2001:db8::1"`}, "10.0.0.9", ""},
		{[]string{`for="1.2.3.4`}, "10.0.0.9", ""},
		{[]string{"for="}, "10.0.0.9", ""},
		{[]string{"for"}, "10.0.0.9", ""},
		{[]string{"=x, for=1.2.3.4"}, "10.0.0.9", ""},
		{[]string{"x y, for=9.9.9.9", "for=1.2.3.4"}, "1.2.3.4", ""},
	} {
		x := &Exchange{Remote: netip.MustParseAddrPort("10.0.0.9:1")}
		for _, v := range tt.lines {
			x.Header.list = append(x.Header.list, sent("Forwarded", v).list...)
		}
		client, scheme := ours.standard(x)
		require.Equal(t, tt.client, client.String(), "%q", tt.lines)
		require.Equal(t, tt.scheme, scheme, "%q", tt.lines)
	}
	ours.Next = HandlerFunc(func(x *Exchange) {})
	x := &Exchange{Remote: netip.MustParseAddrPort("10.0.0.9:1"), Scheme: "http",
		Header: sent("X-Forwarded-For", "6.6.6.6", "Forwarded", "for=1.2.3.4;proto=https", "X-Forwarded-Proto", "http", "X-A", "1")}
	ours.ServeExchange(x)
	require.Equal(t, "1.2.3.4", x.Client.String())
	require.Equal(t, "https", x.Scheme)
	require.Equal(t, 2, x.Header.Len())
}

// sent is MakeFields for fields that come with a request.
func sent(pairs ...string) Fields {
	f := MakeFields(pairs...)
	for i := range f.list {
		f.list[i].kind = kindOf(f.list[i].Name)
	}
	f.tells = false
	return f
}

// Whatever stands left of the first address that is not ours changes nothing,
// and what is written is read back.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"for=1.2.3.4", `for="[::1]:80";by=_x, for=10.0.0.1`, `for="a\"b"`, ",;,", "for=unknown;host=a:80;proto=https"} {
		f.Add(s, "_x")
	}
	ours := &TrustForwarded{Prefixes: prefixes("10.0.0.0/8"), Standard: true}
	f.Fuzz(func(t *testing.T, s, node string) {
		if !validValue(s) {
			return
		}
		one := &Exchange{Remote: netip.MustParseAddrPort("10.0.0.9:1"), Header: sent("Forwarded", s)}
		two := &Exchange{Remote: one.Remote, Header: sent("Forwarded", "for=6.6.6.6, "+s)}
		a, _ := ours.standard(one)
		b, _ := ours.standard(two)
		require.True(t, a.IsValid())
		if !ours.trusts(a) {
			require.Equal(t, a, b, "%q", s)
		}
		SetForwarded{For: func(*Exchange) string { return node }}.EditFields(one, &one.Header)
		hops, ok := parseForwarded(nil, one.Header.Get("Forwarded"))
		require.True(t, ok && len(hops) == 1, "%q", node)
	})
}

// Proxies tell of TLS by several names.
func TestForwardedProtoNames(t *testing.T) {
	for proto, want := range map[string]string{
		"https": "https", "HTTPS": "https", "wss": "https", "WSS": "https", "http": "http", "ws": "http", "ftp": "", "": "", "https, ws": "http",
	} {
		for _, c := range []struct {
			trust TrustForwarded
			field [2]string
		}{
			{TrustForwarded{}, [2]string{"X-Forwarded-Proto", proto}},
			{TrustForwarded{Standard: true}, [2]string{"Forwarded", "for=1.2.3.4;proto=" + proto}},
		} {
			if c.trust.Standard && !isToken(proto) {
				continue
			}
			for _, before := range []string{"http", "https"} {
				x := &Exchange{Scheme: before, Remote: netip.MustParseAddrPort("10.0.0.1:1"), Header: sent(c.field[0], c.field[1])}
				c.trust.Prefixes = prefixes("10.0.0.0/8")
				scheme := ""
				c.trust.Next = HandlerFunc(func(x *Exchange) { scheme = x.Scheme })
				if c.trust.ServeExchange(x); scheme != cmpOr(want, before) {
					t.Errorf("%s: %q of %s: %s; want %s", c.field[0], proto, before, scheme, cmpOr(want, before))
				}
			}
		}
	}
}
