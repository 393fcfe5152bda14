// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRewrite(t *testing.T) {
	tests := []struct {
		h    Rewrite
		in   string
		want string
	}{
		{Rewrite{StripPrefix: "/api/"}, "/api/v1?x", "GET 10.0.0.1/v1?x"},
		{Rewrite{StripPrefix: "/api"}, "/api", "GET 10.0.0.1/"},
		{Rewrite{StripPrefix: "/api"}, "/apiary", "GET 10.0.0.1/apiary"},
		{Rewrite{AddPrefix: "/new/"}, "/a%2Fb//c", "GET 10.0.0.1/new/a%2Fb//c"},
		{Rewrite{StripPrefix: "/a", AddPrefix: "/b"}, "/a/c", "GET 10.0.0.1/b/c"},
		{Rewrite{Regexp: regexp.MustCompile(`^/u/(\d+)/`), With: "/users/$1/"}, "/u/7/x?y=1", "GET 10.0.0.1/users/7/x?y=1"},
		{Rewrite{Query: func(x *Exchange) string { return "was=" + x.Query[1:] }}, "/?a", "GET 10.0.0.1/?was=a"},
		{Rewrite{Query: func(x *Exchange) string { return "" }}, "/?a", "GET 10.0.0.1/"},
		{Rewrite{Host: "inner:81"}, "/", "GET inner:81/"},
		{Rewrite{HostOf: func(x *Exchange) string { return "a." + x.Host }}, "/", "GET a.10.0.0.1/"},
		{Rewrite{Method: "PURGE"}, "/", "PURGE 10.0.0.1/"},
		{Rewrite{Path: func(x *Exchange) string { return "/a b" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{Path: func(x *Exchange) string { return "//evil?" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{Path: func(x *Exchange) string { return "evil" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{HostOf: func(*Exchange) string { return "a/b" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{Query: func(x *Exchange) string { return "a\r\nb" }}, "/", "500 Internal Server Error\n"},
	}
	for _, tt := range tests {
		tt.h.Next = text
		onBoth(t, func(*site) http.Handler { return &tt.h }, func(s *site) {
			t := s.T
			require.Equal(t, tt.want, s.get(tt.in).body, "%+v", tt.h)
		})
	}
}

// What is found but once is replaced as package regexp does it.
func FuzzReplaceAll(f *testing.F) {
	for _, seed := range [][3]string{
		{"^/api/", "/api/v1", "/"}, {"^/u/([0-9]+)(x)?", "/u/77/y", "/users/$1/${2}$2$$"}, {"^a*", "aab", "$0x$1_"}, {"^", "a", "b"}, {"^+a", "a", ""},
		{"^a|b", "ab", ""}, {"^(?m:^a)", "a\na", "b"}, {"^(.)(.)", "xyz", "$2$1$3"}, {"^x?", "y", "$"}, {"^(?i)A", "a", "$1é"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, expr, s, with string) {
		if len(expr) > 100 {
			return
		}
		e, err := regexp.Compile(expr)
		if err != nil {
			return
		}
		require.Equal(t, e.ReplaceAllString(s, with), replaceAll(e, s, with), "%q %q %q", expr, s, with)
	})
}

func TestRedirect(t *testing.T) {
	tests := []struct {
		h      Redirect
		host   string
		in     string
		status int
		want   string
	}{
		{Redirect{Scheme: "https"}, "a.example:8080", "/x?y", 302, "https://a.example/x?y"},
		{Redirect{Scheme: "https", Status: 308}, "[::1]:80", "/", 308, "https://[::1]/"},
		{Redirect{Host: "www.example", Status: 301}, "example", "//evil/x", 301, "http://www.example//evil/x"},
		{Redirect{StripPrefix: "/old", AddPrefix: "/new", Status: 307}, "a", "/old/x", 307, "http://a/new/x"},
		{Redirect{StripPrefix: "/old"}, "a", "/old", 302, "http://a/"},
		{Redirect{AppendSlash: true, DropQuery: true, Status: 303}, "a", "/x?y", 303, "http://a/x/"},
		{Redirect{To: func(x *Exchange) string { return "https://b" + x.Path }}, "a", "/x?y", 302, "https://b/x"},
		{Redirect{To: func(x *Exchange) string { return "" }}, "a", "/x", 404, ""},
		{Redirect{To: func(x *Exchange) string { return "" }, Next: text}, "a", "/x", 200, ""},
	}
	for _, tt := range tests {
		onBoth(t, func(*site) http.Handler { return &tt.h }, func(s *site) {
			t := s.T
			a := s.get(tt.in, "Host", tt.host)
			require.Equal(t, tt.status, a.StatusCode)
			require.Equal(t, tt.want, a.Header.Get("Location"))
		})
	}
	h := &Redirect{Header: MakeFields("Set-Cookie", "a=b")}
	onBoth(t, func(*site) http.Handler { return h }, func(s *site) {
		t := s.T
		for range 2 {
			require.Equal(t, []string{"a=b"}, s.get("/").Header.Values("Set-Cookie"))
		}
	})
	require.Equal(t, 1, h.Header.Len(), "a reply does not change what it was made from")
}
